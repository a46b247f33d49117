"""The pace of requests: how many are in flight, shared by all runs against an account."""
