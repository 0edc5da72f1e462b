"""The `chat` command: a module per group of commands, each imported when it runs."""
