"""Classifies errors of Supabase: the user's, this request's, or the service's, including our keys and schema.

An error that only an operator can fix is `supabase_unavailable` for users, and is logged. Performs no requests.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import httpx
import structlog
from cachetools import TTLCache
from postgrest import APIError

from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.resilience import ServiceError

log = structlog.get_logger(__name__)

Setting = Literal["SUPABASE_SERVICE_KEY", "SUPABASE_ANON_KEY"]

UNAVAILABLE_CODES: Final = frozenset({"", "PGRST000", "PGRST001", "PGRST002", "PGRST003"})
"""PostgREST without its database, and a gateway in between, which has none of its codes."""

UNAVAILABLE_CLASSES: Final = ("08", "40", "53", "55", "57", "58", "XX")
"""SQLSTATE classes of an unavailable database: connection, rollback, resources, locks, operator, system."""

UNSTORABLE_TEXT: Final = frozenset({"22021", "22P05"})
"""PostgreSQL's codes for a NUL character."""

OF_THE_REQUEST: Final = ("21", "22", "23", "44", "54", "P0", "PT", "PGRST1")
"""SQLSTATE and PostgREST classes about one request's values: a defect of ours, not an outage."""

READ_ONLY: Final = "25006"
"""A database whose disk is nearly full, or a replica: supabase.com/docs/guides/platform/database-size."""

SCHEMA_CACHE: Final = "PGRST2"
"""A function, table or column that PostgREST does not know: for seconds after a migration, or until it is applied."""

UNVERIFIABLE: Final = "PGRST300"
OF_TOKENS: Final = "PGRST3"
"""PostgREST's codes about a JWT. It refuses an `iat` or `nbf` more than 30 s in the future."""

_TO_COME: Final = ("issued at future", "not yet valid")
_OF_OUR_KEY: Final = re.compile(r"\bapi keys?\b|\binvalid authentication credentials\b", re.IGNORECASE)
"""Texts of Supabase's gateways about `apikey`, which has our key and never a user's token."""
TO_COME_SECONDS: Final = 2.0
"""The `retry_after` for a token that is not valid yet: about the duration measured at hosted projects."""
LOGGED_AGAIN_SECONDS: Final = 60.0
KINDS: Final = 1_000


class SupabaseError(Exception):
    """Supabase refused a request that it should have accepted. Contains no row values, since those may be messages."""


class Faults:
    """Classifies errors of one project. Each kind is logged at most once a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._logged: TTLCache[str, None] = TTLCache(KINDS, LOGGED_AGAIN_SECONDS, timer=clock)

    @contextmanager
    def translated(self, key: Setting, *, of_user: bool = False) -> Iterator[None]:
        """Convert errors of the connection and of PostgREST to ServiceError, PlatformError or SupabaseError.

        `key` is the setting of the request's key; `of_user`: the request also has a user's token.
        """
        try:
            yield
        except httpx.HTTPError as cause:
            raise ServiceError(f"no connection to Supabase: {type(cause).__name__}") from cause
        except UnicodeEncodeError as cause:
            raise PlatformError(ErrorCode.INVALID_REQUEST, "The text is not valid Unicode.") from cause
        except APIError as cause:
            raise self._classify(cause.code or "", cause.message or "", key, of_user=of_user) from None

    def refuses_our_key(self, status: int, body: str, key: Setting) -> ServiceError | None:
        """The error if the answer refuses our key, else None."""
        if status not in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN) or not _OF_OUR_KEY.search(body):
            return None
        return self._key_refused(str(status), body, key)

    def report(self, event: str, about: str, **fields: object) -> None:
        """Log an event for the operator, at most once a minute for each kind."""
        kind = f"{event} {about}"
        if kind not in self._logged:
            self._logged[kind] = None
            log.error(event, about=about, **fields)

    def _classify(self, code: str, message: str, key: Setting, *, of_user: bool) -> Exception:
        if _OF_OUR_KEY.search(message):
            return self._key_refused(code, message, key)
        if code in UNSTORABLE_TEXT:
            return PlatformError(ErrorCode.INVALID_REQUEST, "The text contains a NUL character.")
        if code.startswith(OF_TOKENS):
            return self._of_token(code, message) if of_user else self._key_refused(code, message, key)
        if _is_unavailable(code, message):
            return ServiceError(f"Supabase is unavailable ({code})")
        if code.startswith(OF_THE_REQUEST) or code == "SUP":
            return SupabaseError(f"Supabase refused the request ({code}): {message}")
        return self._cannot_serve(code, message)

    def _of_token(self, code: str, message: str) -> Exception:
        """The error of a user's token. One that is not valid yet is temporary: a refreshed one would be newer still."""
        lower = message.lower()
        if any(words in lower for words in _TO_COME):
            self.report("supabase.token_of_the_future", code, message=message)
            return ServiceError(f"the token is not valid yet ({code})", retry_after=TO_COME_SECONDS, answered=True)
        if code == UNVERIFIABLE:
            return ServiceError(f"PostgREST cannot verify any token ({code})")
        return PlatformError(ErrorCode.TOKEN_EXPIRED if "expired" in lower else ErrorCode.UNAUTHORIZED)

    def _cannot_serve(self, code: str, message: str) -> ServiceError:
        """The error of a call that fails for all users. Not counted by the breaker, since other calls work."""
        if code == READ_ONLY:
            self.report("supabase.read_only", code, message=message)
        elif code.startswith(SCHEMA_CACHE):
            self.report("supabase.schema_unknown", code, message=message, hint="chat migrate, if it lasts")
        else:
            self.report("supabase.refused", code, message=message)
        return ServiceError(f"Supabase refuses a valid request ({code})", answered=True)

    def _key_refused(self, code: str, message: str, key: Setting) -> ServiceError:
        self.report("supabase.key_refused", key, code=code, message=message[:200])
        return ServiceError(f"Supabase refuses {key} ({code})")


def _is_unavailable(code: str, message: str) -> bool:
    """Whether the service is at fault. `SUP` is Supabase Lite's code for errors without a code of their own."""
    if code == "SUP":
        return " violates " not in message
    gateway_error = len(code) == 3 and code.isdigit()  # the HTTP status, if the body is not PostgREST's
    return gateway_error or code in UNAVAILABLE_CODES or code.startswith(UNAVAILABLE_CLASSES)
