"""One message without a screen, for pipes and scripts: standard output gets the text of the reply and nothing else."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from ai_chat_client.chat import Chat
from ai_chat_client.errors import ChatError
from ai_chat_client.state import ChatTurn, is_open
from ai_chat_client.talk.clean import clean

STOP_SECONDS = 5


async def answer(chat: Chat, message: str, write: Callable[[str], None], *, as_it_comes: bool) -> None:
    """Send a message, and write its reply: as it comes, which suits people, or once it is final. Ctrl-C stops the turn.

    Raises ChatError: why there is no reply, or only a part of it."""
    written = ""
    sent = chat.send(message.encode("utf-8", "replace").decode())
    try:
        turn_id = await _accepted(chat, sent)
        async for state in chat.states():
            turn = next((turn for turn in state.turns if turn.id == turn_id), None)
            if turn is None:
                raise ChatError("not_found", "The turn was deleted.")
            has_ended = not is_open(turn)
            text = clean(turn.reply.text) if turn.reply else ""
            if has_ended and not text.startswith(written):
                write("\n\n")  # the final text is another one than what was seen of it
                written = ""
            if (as_it_comes or has_ended) and text.startswith(written):
                write(text[len(written) :])
                written = text
            if has_ended:
                if written and not written.endswith("\n"):
                    write("\n")
                _check(turn)
                return
            if state.connection == "closed":
                raise state.error or ChatError("closed", "The connection was closed.")
    except asyncio.CancelledError:
        await _stop(chat, sent)
        raise


async def _accepted(chat: Chat, sent: "asyncio.Future[str]") -> str:
    """The id of the turn. Raises ChatError, also if the server cannot be reached at all."""
    async for state in chat.states():
        if sent.done():
            break
        if state.connection == "closed" or (state.user_id is None and _is_unreachable(state.error)):
            raise state.error or ChatError("closed", "The connection was closed.")
    return await sent


def _is_unreachable(error: ChatError | None) -> bool:
    return error is not None and error.code == "network"


async def _stop(chat: Chat, sent: "asyncio.Future[str]") -> None:
    """Stop the turn; without a connection it goes on, as if the person had only gone."""
    with suppress(ChatError, TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await chat.cancel(await sent)


def _check(turn: ChatTurn) -> None:
    message = turn.reply or turn.user
    if message and message.error:
        raise message.error
    if message is None or message.status != "complete":
        raise ChatError("closed", "The reply was stopped.")
