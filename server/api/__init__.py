"""The REST API: one module per resource, pydantic models for requests, and the OpenAPI document."""
