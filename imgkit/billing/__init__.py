"""Accounts of paid attempts: reservations in ledgers, the spool of replies, the store of a budget.

The room keeps what was paid for. It sends nothing and does not know models or caches.
"""
