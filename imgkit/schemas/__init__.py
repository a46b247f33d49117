"""Validation of requests, responses and model data with marshmallow. No I/O; no rules of single models."""
