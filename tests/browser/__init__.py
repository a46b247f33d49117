"""Tests in a real browser; `make browser` runs them."""
