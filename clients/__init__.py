"""Clients of the platform, and the suite that any client can be run against."""
