"""Bringing an attempt to its stored end, whatever goes wrong on the way: a user's next turn waits for it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import structlog

from server.ports import FencedError, TurnEnd
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn, TurnError, TurnStatus
from server.sessions.attempt import Attempt
from server.sessions.patience import patiently

log = structlog.get_logger(__name__)

Finish = Callable[[TurnEnd], Awaitable[Turn]]


async def conclude(attempt: Attempt, finish: Finish) -> Turn:
    """Run the attempt and store how it ended with `finish`, however long the database is unavailable.

    An end that the database refuses is stored as a failure instead, with the text that was shown. Raises FencedError.
    """
    turn = attempt.turn
    end = await _end_of(attempt)
    failed = replace(end, status=TurnStatus.FAILED, estimate=None, error=_internal_error(), reason=None, carried=())
    for kept in (end, failed):
        try:
            return await patiently(partial(finish, kept), turn.user_id)
        except FencedError:
            raise
        except Exception as error:
            code = error.code if isinstance(error, PlatformError) else None
            if code is ErrorCode.SUPABASE_UNAVAILABLE:
                raise
            log.exception("turn.end_refused", user_id=turn.user_id, turn_id=turn.id, code=code)
    return await patiently(partial(finish, replace(failed, text="", usage=None, run_completed=False)), turn.user_id)


async def _end_of(attempt: Attempt) -> TurnEnd:
    try:
        return await attempt.run()
    except FencedError:
        raise
    except Exception:
        turn = attempt.turn
        log.exception("turn.crashed", user_id=turn.user_id, turn_id=turn.id)
        return TurnEnd(
            turn.id,
            turn.attempt,
            TurnStatus.FAILED,
            attempt.reply.text,
            sent_after=attempt.sent_after,
            error=_internal_error(),
        )


def _internal_error() -> TurnError:
    error = PlatformError(ErrorCode.INTERNAL_ERROR)
    return TurnError(error.code, error.message, error.retryable)
