"""What operators do from a terminal with a running platform: look after users. Wired like the server itself."""
