"""Recorded traffic: what is taken out of it, where its pictures are, and how it is read again."""
