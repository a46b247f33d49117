"""API dialects: how an operation becomes a request, and a reply becomes pictures."""
