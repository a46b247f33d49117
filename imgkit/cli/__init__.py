"""The `imgkit` command: `app` knows the commands, `run` their exit codes, `drawing` what they do."""
