"""Bytes on their way: forms out, base64 and JSON in."""
