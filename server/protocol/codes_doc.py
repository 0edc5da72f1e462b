"""Generates docs/errors.md from the tables in `codes`: `python -m server.protocol.codes_doc > docs/errors.md`."""

import sys
from collections.abc import Iterable

from server.protocol.codes import CLOSE_CODES, ERRORS

_OPENING = """\
# Error and close codes

Generated from `server/protocol/codes.py` by `python -m server.protocol.codes_doc > docs/errors.md`.

## Errors

REST answers carry them as `application/problem+json`, WebSocket connections as `error` frames, failed turns in their
`error`. *Retryable*: the same request may succeed later; where the server knows when, `retry_after` says so in seconds.
"""

_CLOSING = """\
## WebSocket close codes

*Reconnect*: whether a client should open a new connection, resuming from its cursor.
"""


def render() -> str:
    """The whole document."""
    errors = [
        (f"`{code}`", str(rule.status), _yes(rule.retryable), rule.sentence)
        for code, rule in sorted(ERRORS.items(), key=lambda item: item[1].status)
    ]
    closes = [(str(close.code), f"`{close.reason}`", _yes(close.reconnect), close.meaning) for close in CLOSE_CODES]
    return "\n".join(
        (
            _OPENING,
            _table(("Code", "Status", "Retryable", "Meaning"), errors),
            _CLOSING,
            _table(("Code", "Reason", "Reconnect", "Meaning"), closes),
        )
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = (head, tuple("---" for _ in head), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


if __name__ == "__main__":
    sys.stdout.write(render())
