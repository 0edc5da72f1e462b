"""Thin shells between a socket and a session."""
