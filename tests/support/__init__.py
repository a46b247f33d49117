"""What several tests use: servers that speak raw bytes, and pictures."""
