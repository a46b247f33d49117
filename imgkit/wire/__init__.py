"""HTTP messages, transfers, and incremental readers and writers of their bodies.

This room knows bytes and formats. It knows no image API, and it opens no connection.
"""
