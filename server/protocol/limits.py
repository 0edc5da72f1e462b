"""All limits of the protocol with their defaults; settings override them, and tests lower them."""

from dataclasses import dataclass
from typing import ClassVar, Final

_REMINDED_SHARE: Final = 4
"""A reminder uses at most this part (one in four) of the model's context window."""
_BYTES_PER_TOKEN: Final = 3
"""An estimate without a tokenizer; most texts have more bytes per token."""


def reminder_bytes(context_window: int) -> int:
    """The maximum bytes of UTF-8 in a reminder, for a context window in tokens."""
    return context_window // _REMINDED_SHARE * _BYTES_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much one user may store: queued turns, unsent turns of this budget period, and messages and retries per
    minute (0: unlimited)."""

    waiting: int = 8
    unsent: int = 20
    per_minute: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes unless named otherwise, times in seconds.

    Limits by which requests are validated are class variables, since they are not settings.
    """

    content_characters: ClassVar[int] = 32_000
    name_characters: ClassVar[int] = 100
    history_page: ClassVar[int] = 100
    search_characters: ClassVar[int] = 200
    steps_bytes: ClassVar[int] = 64 * 1024

    frame_bytes: int = 64 * 1024
    connections_per_user: int = 16
    waiting_turns_per_user: int = 8
    unsent_turns_per_period: int = 20
    messages_per_minute: int = 30
    running_turns: int = 16
    expected_wait_seconds: float = 60.0
    slow_consumer_bytes: int = 1024 * 1024
    log_events: int = 2_000
    log_bytes: int = 1024 * 1024
    event_text_bytes: int = 16 * 1024
    reminder_bytes: int = reminder_bytes(32_000)
    ping_seconds: float = 25.0
    pong_seconds: float = 10.0
    probe_seconds: float = 3.0
    stream_age_seconds: float = 30.0
    auth_seconds: float = 10.0
    first_frame_bytes: int = 16 * 1024
    refusal_seconds: float = 1.0
    unauthenticated_sockets: int = 1_000
    unauthenticated_sockets_per_address: int = 100
    close_seconds: float = 5.0
    turn_seconds: float = 240.0
    cancel_seconds: float = 5.0
    ticket_seconds: float = 30.0
    idle_session_seconds: float = 300.0
    sse_comment_seconds: float = 25.0
    sse_lifetime_seconds: float = 13 * 60.0
    response_seconds: float = 45.0
    provisioning_seconds: float = 30.0

    def allowance(self, *, is_paced: bool = True) -> Allowance:
        """The user's allowance. `is_paced=False`: without the rate limit, for retries that the user did not request."""
        per_minute = self.messages_per_minute if is_paced else 0
        return Allowance(self.waiting_turns_per_user, self.unsent_turns_per_period, per_minute)

    def wire(self) -> dict[str, int | float]:
        """The limits that concern clients, as in the `ready` frame."""
        shown = (
            *("frame_bytes", "content_characters", "waiting_turns_per_user", "messages_per_minute"),
            *("ping_seconds", "turn_seconds"),
        )
        return {name: getattr(self, name) for name in shown}
