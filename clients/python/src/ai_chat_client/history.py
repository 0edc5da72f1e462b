"""Pages of the history, and how they join what is already shown."""

from collections.abc import Mapping
from dataclasses import replace

from ai_chat_client.reader import Missed
from ai_chat_client.reduce import new_reply, user_message
from ai_chat_client.state import ChatMessage, ChatState, ChatTurn, HistoryState, is_open, with_turns
from ai_chat_client.steps import with_steps
from ai_chat_client.wire import History, Message

Turns = Mapping[str | None, ChatTurn]
"""By id."""


def with_newest(state: ChatState, page: History, old: Turns) -> ChatState:
    """The newest page. Turns before it stay if they adjoin it; otherwise they can be loaded again.

    `old`: the turns that were shown when the page was asked for. Others are newer than the page, or in it."""
    merged, in_page = _joined_page(state, page, old)
    first = next((number for number, turn in enumerate(state.turns) if turn.id in in_page), None)
    before = state.turns[:first] if first is not None else ()
    after = [
        turn
        for turn in state.turns[len(before) :]
        if turn.id not in in_page and (first is not None or turn.id not in old)
    ]
    history = replace(state.history, is_loading=False) if before else _loaded(page)
    return with_turns(replace(state, history=history), [*before, *merged, *after])


def with_missed(state: ChatState, missed: Missed, old: Turns) -> ChatState:
    """What was read after a connection that was not resumed."""
    state = with_turns(state, [turn for turn in state.turns if turn.id not in missed.gone])
    return with_newest(state, missed.page, old)


def with_older(state: ChatState, page: History) -> ChatState:
    """A page of older messages. Its newest turn may be the rest of the oldest one here."""
    merged, in_page = _joined_page(state, page, {})
    newer = [turn for turn in state.turns if turn.id not in in_page]
    return with_turns(replace(state, history=_loaded(page)), [*merged, *newer])


def _joined_page(state: ChatState, page: History, old: Turns) -> tuple[list[ChatTurn], set[str | None]]:
    known = {turn.id: turn for turn in state.turns}
    stored = _turns_of(page)
    return [_joined(known.get(turn.id), turn, old.get(turn.id)) for turn in stored], {turn.id for turn in stored}


def _loaded(page: History) -> HistoryState:
    return HistoryState(is_loading=False, has_more=page["has_more"], before=page["next_cursor"])


def _joined(known: ChatTurn | None, stored: ChatTurn, before: ChatTurn | None) -> ChatTurn:
    """What events have shown of a turn that is open, or since the page was asked for, is at least as new as the page.

    `before`: the turn as it was shown then."""
    if known is None:
        return stored
    turn = replace(known, user=known.user or stored.user)
    if is_open(known) or stored.reply is None or _text(known) != _text(before):
        return turn
    new = stored.reply
    reply = known.reply or new
    if (new.reasoning or new.tools) and not (reply.reasoning or reply.tools):
        reply = replace(reply, reasoning=new.reasoning, tools=new.tools)
    if reply.text != new.text:
        reply = replace(reply, text=new.text, status=new.status, cost=new.cost)
    return replace(turn, reply=reply)


def _text(turn: ChatTurn | None) -> str | None:
    return turn.reply.text if turn and turn.reply else None


def _turns_of(page: History) -> list[ChatTurn]:
    """The page's messages, oldest first, by turn. A turn without a reply was not sent, failed or was stopped."""
    turns: list[ChatTurn] = []
    for message in reversed(page["data"]):
        if not turns or turns[-1].id != message["turn_id"]:
            turns.append(ChatTurn(message["turn_id"], 0, None, None))
        if message["role"] == "user":
            user = user_message(message, None, "unsent" if message["status"] == "unsent" else "sent")
            turns[-1] = replace(turns[-1], user=user)
        else:
            turns[-1] = replace(turns[-1], reply=_reply_of(message))
    return [
        replace(turn, user=replace(turn.user, can_retry=True)) if turn.user and not turn.reply else turn
        for turn in turns
    ]


def _reply_of(message: Message) -> ChatMessage:
    is_partial = message["status"] == "partial"
    reply = replace(
        new_reply(message["turn_id"], message["created_at"]),
        text=message["content"],
        cost=message["cost"],
        status="partial" if is_partial else "complete",
        can_retry=is_partial,
    )
    return with_steps(reply, message.get("steps"))
