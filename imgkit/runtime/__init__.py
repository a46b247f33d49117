"""The drivers that carry out a flow's effects: in the caller's thread, or in the caller's task.

Threads and event loops live here and in the backends. The room knows no provider and no plugin.
"""
