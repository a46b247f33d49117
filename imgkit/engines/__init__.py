"""Engines: where the requests of a run are carried out. Runs find them by their registered names."""
