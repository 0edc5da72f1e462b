"""The local stack: every service the platform needs, as supervised child processes of `chat up`."""
