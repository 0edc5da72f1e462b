"""The turns of a session: an attempt at one, its reply, and what becomes of both."""
