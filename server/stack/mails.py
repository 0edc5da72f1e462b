"""Reads the mails of the local stack's Supabase Auth, which are written to a file instead of being sent."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["signup", "recovery", "magiclink", "email_change"]


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. `at` is RFC 3339 in UTC; opening `link` or entering `code` completes the action of the mail.

    `kind` is GoTrue's type of the link; None for a mail without a link."""

    at: str
    to: str
    subject: str
    kind: Kind | None
    link: str | None
    code: str | None
    text: str


def mail_file(data_dir: Path) -> Path:
    """The file of the mails that Supabase Auth would send, one JSON object per line."""
    return data_dir / "supabase" / "mails.jsonl"


def read_mails(path: Path, to: str | None = None) -> list[Mail]:
    """The mails in a file, oldest first, all or those to one address; empty if the file does not exist.

    An incomplete last line, which is being written, is skipped."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    mails = [Mail(**json.loads(line)) for line in lines if line.endswith("\n")]
    return [mail for mail in mails if to is None or mail.to.lower() == to.lower()]
