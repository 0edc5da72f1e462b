"""The REST API with in-memory fakes of the services, through a real HTTP client."""
