"""The AI Chat Platform backend: one personal, remembering agent per user."""

__version__ = "0.1.0"
