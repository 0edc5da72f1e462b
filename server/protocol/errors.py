"""The one exception that carries a protocol error from wherever it is noticed to whichever transport reports it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from server.protocol.codes import ERRORS, ErrorCode, ErrorRule


@dataclass(frozen=True, slots=True)
class FieldError:
    """One wrong field of a request: a JSON pointer to it and what is wrong with it."""

    pointer: str
    detail: str


class PlatformError(Exception):
    """A refusal or failure in the protocol's terms.

    `message` is a sentence for people. `retry_after` is in seconds. `retryable` is the code's own rule unless given.
    `members` are further facts, as the wire shows them. The cause, where there is one, is chained with `raise … from`.
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
        self.retry_after = retry_after
        self.errors = errors
        self.id = id
        self.members = members or {}
        super().__init__(f"{code}: {self.message}")

    @property
    def retry_after_seconds(self) -> int | None:
        """`retry_after` as whole seconds, rounded up, at least 1: what the wire and the Retry-After header carry."""
        return None if self.retry_after is None else max(1, math.ceil(self.retry_after))
