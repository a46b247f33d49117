"""The plugins that imgkit composes itself: auth, retry, logging, telemetry, budget, spool, cache, recorder.

Nothing here imports the core or a service.
"""
