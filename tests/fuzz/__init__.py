"""Random input for a server with fake services, in a process of its own: `uv run python -m tests.fuzz --inputs N`.

`rest` sends requests that the OpenAPI document allows and forbids, `frames` WebSocket frames and parameters of event
streams, `sockets` bytes that no client library sends. Whatever is sent, the server answers without an error of its own,
shows nobody another user's data and no secret, and ends all tasks.
"""
