"""Tests against real clusters, object stores and loaders: `make integrations`."""
