"""The AI Chat Platform backend: one personal, remembering agent per user."""
