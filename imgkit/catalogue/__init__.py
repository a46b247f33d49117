"""Dated data about models: rules for requests and inputs, and prices. Nothing here sends a request."""
