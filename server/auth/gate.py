"""Who may have an account: decided when one would be opened, by a registration or by a first request with a token.

Existing accounts pass, and so do those that an operator opens. Pure.
"""

from dataclasses import dataclass
from typing import Literal

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

Registration = Literal["open", "closed"] | tuple[str, ...]
"""Open to all, closed to all, or open to addresses of these mail domains (in lower case)."""


@dataclass(frozen=True, slots=True)
class AccountGate:
    """The settings REGISTRATION and ALLOW_ANONYMOUS."""

    registration: Registration = "open"
    anonymous_allowed: bool = False

    def admit(self, email: str, *, is_anonymous: bool = False) -> None:
        """Raises PlatformError(registration_closed | anonymous_not_allowed)."""
        self.admit_credential(is_anonymous=is_anonymous)
        if self.registration == "open":
            return
        if self.registration == "closed":
            raise PlatformError(ErrorCode.REGISTRATION_CLOSED)
        domain = email.rpartition("@")[2].strip().lower()
        if not is_anonymous and domain not in self.registration:
            message = "Only addresses of certain mail domains may register here."
            raise PlatformError(ErrorCode.REGISTRATION_CLOSED, message)

    def admit_credential(self, *, is_anonymous: bool) -> None:
        """Check a token of an existing user, too. Raises PlatformError(anonymous_not_allowed)."""
        if is_anonymous and not self.anonymous_allowed:
            raise PlatformError(ErrorCode.ANONYMOUS_NOT_ALLOWED)
