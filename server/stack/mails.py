"""The mails of the local stack's Supabase Auth, which are kept in a file in place of being sent. Reads that file."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["signup", "recovery", "magiclink", "email_change"]


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail. `at` is RFC 3339 in UTC; following `link` does what the mail is about, as does typing `code`.

    `kind` is the link's type in GoTrue's words; None for a mail without a link."""

    at: str
    to: str
    subject: str
    kind: Kind | None
    link: str | None
    code: str | None
    text: str


def read_mails(path: Path, to: str | None = None) -> list[Mail]:
    """The mails in a file, oldest first, all or those to one address; none where there is no file yet.

    A line that is being written at this moment is left out."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    mails = [Mail(**json.loads(line)) for line in lines if line.endswith("\n")]
    return [mail for mail in mails if to is None or mail.to.lower() == to.lower()]
