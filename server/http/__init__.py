"""The HTTP layer below the API: connections, middlewares, validation of input, and the declaration of routes."""
