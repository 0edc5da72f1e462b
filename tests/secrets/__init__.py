"""Shows that no secret in use appears where it must not: in answers, logs, metrics, databases, command lines."""
