"""Stores that imgkit brings along; see `imgkit.cache.CacheStore`."""
