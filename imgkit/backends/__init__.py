"""How a request travels and a reply comes back."""
