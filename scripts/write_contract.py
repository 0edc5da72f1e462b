"""Write the machine-readable descriptions of the API: `uv run python scripts/write_contract.py`, after a change of it.

A test compares docs/openapi.json and docs/asyncapi.json with the code."""

from pathlib import Path

import orjson

from server import __version__
from server.api import asyncapi, openapi, router

DOCS = Path(__file__).resolve().parent.parent / "docs"


def documents() -> dict[str, bytes]:
    """The contents of both files, by their names."""
    return {
        "openapi.json": _text(openapi.document(router.ROUTES, __version__)),
        "asyncapi.json": _text(asyncapi.document(__version__)),
    }


def _text(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    for name, text in documents().items():
        (DOCS / name).write_bytes(text)
