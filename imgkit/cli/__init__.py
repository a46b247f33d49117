"""The `imgkit` command: its options, messages and exit codes. Calls of the API belong to the service."""
