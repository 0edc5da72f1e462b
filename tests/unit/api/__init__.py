"""The REST API over honest in-memory services, through a real HTTP client."""
