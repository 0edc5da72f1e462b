"""The exception for all protocol errors, raised anywhere and reported by the transports."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from server.protocol.codes import ERRORS, ErrorCode, ErrorRule


@dataclass(frozen=True, slots=True)
class FieldError:
    """One invalid field of a request: a JSON pointer to it, and the reason."""

    pointer: str
    detail: str


class PlatformError(Exception):
    """A refusal or failure with a code of the protocol.

    `message` is a sentence for users. `retry_after` is in seconds. Both, and `retryable`, are the code's unless given.
    `members` are further fields on the wire. A cause is chained with `raise … from`.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str | None = None,
        *,
        retryable: bool | None = None,
        retry_after: float | None = None,
        errors: tuple[FieldError, ...] = (),
        id: str | None = None,  # noqa: A002 - the field's name on the wire
        members: Mapping[str, object] | None = None,
    ) -> None:
        self.code = code
        self.rule: ErrorRule = ERRORS[code]
        self.message = message or self.rule.sentence
        self.retryable = self.rule.retryable if retryable is None else retryable
        self.retry_after = self.rule.retry_after if retry_after is None else retry_after
        self.errors = errors
        self.id = id
        self.members = members or {}
        super().__init__(f"{code}: {self.message}")

    @property
    def retry_after_seconds(self) -> int | None:
        """`retry_after` in whole seconds, rounded up, at least 1: for the wire and the Retry-After header."""
        return None if self.retry_after is None else max(1, math.ceil(self.retry_after))
