"""The clients in `clients/`: built, checked, tested, and run against the conformance suite and a server."""
