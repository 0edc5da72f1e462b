"""Models of requests. Unknown fields are refused, and text that the database cannot store."""

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from server.ports import LinkToken, MailCode, MailProof, MailType, PkceCode, Scope
from server.protocol.frames import Content, FrameId
from server.protocol.limits import Limits
from server.protocol.shapes import OnBusy
from server.protocol.text import is_readable


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)

    @field_validator("*", mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("must not contain the character U+0000")
        return value


Email = Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")]
Password = Annotated[SecretStr, Field(min_length=1, max_length=256)]
PASSWORD_BYTES = 72
"""The part of a password that bcrypt uses, in bytes of UTF-8. Passwords with the same first 72 bytes are equal."""


def _counts_whole(password: SecretStr) -> SecretStr:
    size = len(password.get_secret_value().encode(errors="replace"))
    if size > PASSWORD_BYTES:
        raise ValueError(
            f"must have at most {PASSWORD_BYTES} bytes in UTF-8, of which this has {size}: what follows would not count"
        )
    return password


NewPassword = Annotated[Password, AfterValidator(_counts_whole)]
"""A password that is set. Sign-in accepts longer ones: the account may have been created elsewhere."""


def _readable(value: str) -> str:
    if not is_readable(value):
        raise ValueError("must not be blank")
    return value


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=Limits.name_characters),
    AfterValidator(_readable),
]


CaptchaToken = Annotated[
    str | None,
    Field(
        default=None,
        max_length=4096,
        description="What the captcha on your page returned, if the project requires one.",
    ),
]


class Register(Request):
    email: Email
    password: NewPassword
    name: Name | None = None
    captcha_token: CaptchaToken


class Login(Request):
    email: Email
    password: Password
    captcha_token: CaptchaToken


class Refresh(Request):
    refresh_token: Annotated[SecretStr, Field(min_length=1, max_length=4096)]


class Logout(Request):
    scope: Literal["local", "others", "global"] = "local"


class Recover(Request):
    email: Email
    captcha_token: CaptchaToken


class Resend(Request):
    email: Email
    type: Literal["signup", "email_change"] = "signup"
    captcha_token: CaptchaToken


MailSecret = Annotated[SecretStr, Field(min_length=1, max_length=512)]


class ProofByMail(Request):
    """Either `token_hash`, or `email` with `token`."""

    token_hash: MailSecret | None = Field(default=None, description="From a mail's link.")
    email: Email | None = None
    token: MailSecret | None = Field(default=None, description="The code in a mail to `email`.")
    captcha_token: CaptchaToken

    def proof(self, type_: MailType) -> MailProof | None:
        """The code or the token of a link; None if neither is complete, or both are given."""
        if self.token_hash is not None:
            return None if self.email is not None or self.token is not None else LinkToken(self.token_hash, type_)
        return None if self.email is None or self.token is None else MailCode(self.email, self.token, type_)


class Verify(ProofByMail):
    """Either `token_hash` or `email` with `token`, and `type`; or `code` with `code_verifier`."""

    type: MailType | None = Field(default=None, description="What the mail is for.")
    code: MailSecret | None = Field(default=None, description="The code to which a link leads (PKCE).")
    code_verifier: MailSecret | None = Field(default=None, description="The verifier of the client that began.")

    @property
    def mail_proof(self) -> MailProof | None:
        """What was sent; None if it is incomplete or ambiguous."""
        if self.code is None and self.code_verifier is None:
            return None if self.type is None else self.proof(self.type)
        if self.code is None or self.code_verifier is None:
            return None
        others = (self.token_hash, self.email, self.token, self.type)
        return PkceCode(self.code, self.code_verifier) if others == (None, None, None, None) else None

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if self.mail_proof is None:
            raise ValueError("give token_hash and type, or email, token and type, or code and code_verifier")
        return self


class Reset(ProofByMail):
    """Either `token_hash`, or `email` with `token`; and the new password."""

    password: NewPassword

    @model_validator(mode="after")
    def _one_proof(self) -> Self:
        if self.proof("recovery") is None:
            raise ValueError("give token_hash, or email and token")
        return self


class ChangePassword(Request):
    password: NewPassword
    current_password: Password | None = Field(
        default=None, description="Required unless the user signed in during the last ten minutes."
    )
    captcha_token: CaptchaToken


class ChangeEmail(Request):
    email: Email
    current_password: Password | None = Field(
        default=None, description="Required unless the user signed in during the last ten minutes."
    )
    captcha_token: CaptchaToken


_LAST_YEAR = 9000
"""Far from the last year of Python's and others' calendars, which another time zone may exceed."""


def _parsed_time(value: Any) -> Any:
    """Allow only RFC 3339: pydantic also accepts numbers and dates."""
    if isinstance(value, str):
        if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", value, re.ASCII):
            raise ValueError("must be a time as 2026-11-29T12:00:00Z")
        moment = datetime.fromisoformat(value)
        if moment.year >= _LAST_YEAR:
            raise ValueError("must be an earlier time")
        return moment
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_parsed_time)]


class CreateApiKey(Request):
    name: Name = Field(description="For people: what the key is for.", examples=["nightly report"])
    scopes: Annotated[list[Scope], Field(min_length=1)] = Field(
        description="`read`: the user's data and events. `chat`: messages, and the agent's memory."
        " `account`: changes of the account.",
        examples=[["read", "chat"]],
    )
    expires_at: Moment | None = Field(default=None, description="RFC 3339. Never, if absent.")


class SendMessage(Request):
    content: Content
    client_message_id: FrameId | None = Field(
        default=None, description="Your id of this message. A repeated id refers to the same turn."
    )
    on_busy: OnBusy = "enqueue"
    stream: bool | None = Field(
        default=None,
        description="true: text/event-stream, false: JSON, which generated clients read. "
        "Else Accept decides; `*/*` means events.",
    )


class CancelTurn(Request):
    turn_id: UUID | None = Field(default=None, description="The running turn, else the first waiting one, if absent.")


class UpdateBlock(Request):
    value: str


class PassageText(Request):
    text: Content


class DeleteUser(Request):
    current_password: Password | None = Field(
        default=None, description="Required unless the user signed in during the last ten minutes."
    )
    captcha_token: CaptchaToken


class UpdateProfile(Request):
    name: Name


class HistoryQuery(Request):
    query: str | None = Field(
        default=None,
        min_length=1,
        max_length=Limits.search_characters,
        description="Only messages in which each word of it begins a word, in any case.",
        examples=["green te"],
    )
    limit: int = Field(default=50, ge=1, le=Limits.history_page)
    before: str | None = Field(default=None, description="A cursor: messages older than it.")
    after: str | None = Field(default=None, description="A cursor: messages newer than it.")
    include: Literal["steps"] | None = Field(
        default=None, description="`steps`: each reply with its reasoning and tool calls."
    )

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if self.before is not None and self.after is not None:
            raise ValueError("give before or after, not both")
        return self


class EventsQuery(Request):
    after: str | None = Field(default=None, description="The cursor of the last event seen.")
    ticket: str | None = Field(default=None, description="From chat/ticket, instead of the Authorization header.")


class MemoryQuery(Request):
    query: str | None = Field(default=None, min_length=1, max_length=1000, description="What to look for.")
    limit: int = Field(default=20, ge=1, le=100)
    before: str | None = Field(default=None, description="A cursor: passages older than it.")


def _plain_date(value: Any) -> Any:
    """Allow only YYYY-MM-DD: pydantic also accepts timestamps and week dates."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value, re.ASCII):
        raise ValueError("must be a date as YYYY-MM-DD")
    return value


Day = Annotated[date, BeforeValidator(_plain_date), Field(ge=date(2000, 1, 1))]


class UsageQuery(Request):
    first: Day | None = Field(default=None, alias="from", description="First UTC day; 29 days before `to` if absent.")
    last: Day | None = Field(default=None, alias="to", description="Last UTC day; today if absent.")
