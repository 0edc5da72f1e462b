"""The heart: one session per user, its turns, and the event log its connections read."""
