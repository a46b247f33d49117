"""Cache stores: replies on disk or in memory, with leases.

Nothing here sends a request or knows a provider.
"""
