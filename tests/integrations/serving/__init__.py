"""Real clients in front of `imgkit serve`, and a counting API behind it."""
