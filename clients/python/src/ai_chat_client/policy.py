"""How long to wait before the next connection, by how the last one ended."""

from ai_chat_client.link import LinkEnd

SHORTEST = 0.5
"""Seconds."""
LONGEST = 30.0


def pause_before(end: LinkEnd, failures: int, random: float) -> float | None:
    """Seconds, or None: do not reconnect.

    `failures`: connections in a row that ended without having lasted. `random`: 0 to 1. The pause doubles with each,
    and is spread over its whole second half: not all clients of a server that restarts come back at once."""
    code, error = end.code, end.error
    if 4500 <= code < 4600 and (error is None or error.code != "invalid_cursor"):
        return None
    backoff = min(SHORTEST * 2.0 ** min(failures - 1, 10), LONGEST)
    spread = backoff / 2 + random * backoff / 2
    if error and error.retry_after:
        return error.retry_after + random * SHORTEST
    if failures > 1:
        return spread
    if code in (4001, 4002):
        return 0.0  # a fresh token, or another instance, is all it needs
    if code in (1001, 1012):
        return random  # a deploy: every client is told at once
    return 5 + random * SHORTEST if code == 4004 else spread
