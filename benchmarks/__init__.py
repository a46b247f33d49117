"""Benchmarks of imgkit beside the libraries that users might choose instead; run by `make bench`."""
