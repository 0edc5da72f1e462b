"""Observability of a running server: logs, metrics and readiness."""
