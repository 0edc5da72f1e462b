"""docs/errors.md equals the tables of codes."""

from pathlib import Path

from server.protocol.codes import CLOSE_CODES, ERRORS, ErrorCode
from server.protocol.codes_doc import render

DOCUMENT = Path(__file__).parents[3] / "docs" / "errors.md"


def test_the_errors_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render()


def test_every_code_has_a_rule_and_a_row() -> None:
    assert set(ERRORS) == set(ErrorCode)
    assert all(f"| `{code}` |" in render() for code in ErrorCode)
    assert all(f"| {close.code} | `{close.reason}` |" in render() for close in CLOSE_CODES)
