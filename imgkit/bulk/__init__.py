"""Bulk runs: many requests, and the file that knows what became of each."""
