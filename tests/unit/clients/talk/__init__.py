"""The Python client's parts, each alone."""
