"""The end of an attempt: as it ended, also if it crashed, and stored, also if the database refuses it."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from server.ports import FencedError, TurnEnd
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError
from server.protocol.shapes import Turn, TurnError, TurnStatus
from server.sessions.store_retry import retry_while_unavailable
from server.sessions.turns.attempt import Attempt

log = structlog.get_logger(__name__)
_INTERNAL: Final = TurnError.by_rule(ErrorCode.INTERNAL_ERROR)


async def end_of(attempt: Attempt) -> TurnEnd:
    """Run the attempt. A crash of ours is a failure with the text so far. Raises FencedError."""
    try:
        return await attempt.run()
    except FencedError:
        raise
    except Exception:
        turn, reply = attempt.turn, attempt.reply
        log.exception("turn.crashed", user_id=turn.user_id, turn_id=turn.id)
        return TurnEnd(
            turn.id,
            turn.attempt,
            TurnStatus.FAILED,
            reply.text,
            sent_after=attempt.sent_after,
            error=_INTERNAL,
            steps=reply.steps,
        )


async def store_end(end: TurnEnd, user_id: str, finish: Callable[[TurnEnd], Awaitable[Turn]]) -> Turn:
    """Store it by `finish`. An end that the database refuses is stored as a failure instead, with what was shown
    if that is accepted. Raises FencedError, PlatformError if the database is unavailable for too long."""
    failed = replace(end, status=TurnStatus.FAILED, estimate=None, error=_INTERNAL, reason=None, carried=())
    bare = replace(failed, text="", steps=(), usage=None, run_completed=False)
    for kept in (end, failed):
        try:
            return await retry_while_unavailable(partial(finish, kept), user_id)
        except FencedError:
            raise
        except Exception as error:
            code = error.code if isinstance(error, PlatformError) else None
            if code is ErrorCode.SUPABASE_UNAVAILABLE:
                raise
            log.exception("turn.end_refused", user_id=user_id, turn_id=end.turn_id, code=code)
    return await retry_while_unavailable(partial(finish, bare), user_id)
