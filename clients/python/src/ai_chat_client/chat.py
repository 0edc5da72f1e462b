"""The client: one object for one signed-in user. It joins the parts of this package and has no protocol of its own."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, MutableMapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal, Self

from ai_chat_client.commands import Answered, answer_over_rest, encoded, id_of
from ai_chat_client.connection import Connection, ConnectionOptions
from ai_chat_client.errors import ChatError
from ai_chat_client.link import OpenLink
from ai_chat_client.listeners import Listeners
from ai_chat_client.loading import Loading
from ai_chat_client.outbox import Outbox, retry_id
from ai_chat_client.reader import Reader
from ai_chat_client.reduce import acknowledged, reduce, reopened
from ai_chat_client.rest import Rest
from ai_chat_client.socket import SocketLink
from ai_chat_client.sse import StreamLink
from ai_chat_client.state import (
    ChatMessage,
    ChatState,
    ChatTurn,
    ConnectionStatus,
    is_open,
    with_local,
    with_local_changed,
    without_local,
)
from ai_chat_client.tokens import GetToken, constant
from ai_chat_client.wire import Frame, SessionEvent

OnBusy = Literal["enqueue", "reject", "interrupt"]
Transport = Literal["auto", "websocket", "sse"]


def _closed() -> ChatError:
    return ChatError("closed", "The chat was closed.")


class Chat:
    """Use as `async with Chat(url, token) as chat:`, or call `open` and `close`.

    `token`: an API key, an access token, or a function that is asked for an access token whenever one is needed.
    `transport`: `auto` uses a WebSocket, and an event stream where WebSockets do not get through.
    `storage`: where messages that were not accepted yet survive a restart, such as a `shelve`. None for nowhere.
    `page_size`: how many messages a page of the history has, up to 100."""

    def __init__(
        self,
        url: str,
        token: GetToken | str,
        *,
        transport: Transport = "auto",
        storage: MutableMapping[str, str] | None = None,
        page_size: int = 50,
    ) -> None:
        self._state = ChatState()
        self._get_token = constant(token) if isinstance(token, str) else token
        self._rest = Rest(url, self._get_token)
        self._transport = transport
        self._loading = Loading(Reader(self._rest, page_size), lambda: self._state, self._change)
        self._outbox = Outbox(self._transmit, lambda message_id, error: self._mark(message_id, error=error), storage)
        self._events: Listeners[SessionEvent] = Listeners()
        self._states: Listeners[ChatState] = Listeners()
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_notifying = False
        self._is_closed = False

    # -- its life -------------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Begin to connect. What is sent before there is a connection waits for it."""
        self.reconnect()
        return self

    async def close(self) -> None:
        """End the connection and everything that waits for it. A closed chat is not opened again.

        Messages that were not accepted yet stay in `storage`, for the next chat of this user."""
        self._is_closed = True
        self._outbox.clear(_closed())
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._rest.close()
        self._show_status("closed", None)
        self._events.emit(None)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def reconnect(self) -> None:
        """Connect again after `connection: "closed"`, for example once the user has signed in again."""
        if self._connecting:
            self._connecting.cancel()
        self._connection = self._new_connection()
        self._connecting = self._begin(self._stay_connected(self._connection))

    # -- what is shown --------------------------------------------------------------------------------------------

    @property
    def state(self) -> ChatState:
        """What to render. It is never changed: each change makes a new one."""
        return self._state

    def subscribe(self, watcher: Callable[[ChatState], None]) -> Callable[[], None]:
        """Have it called after each change of the state. Returns a function that ends it."""
        return self._states.add(lambda state: watcher(state) if state else None)

    async def states(self) -> AsyncIterator[ChatState]:
        """The state now, and the newest one whenever it has changed: `async for state in chat.states()`."""
        changed = asyncio.Event()
        stop = self.subscribe(lambda _: changed.set())
        try:
            while True:
                changed.clear()
                yield self._state
                if self._is_closed:
                    return
                await changed.wait()
        finally:
            stop()

    def on_event(self, listener: Callable[[SessionEvent], None]) -> Callable[[], None]:
        """Have it called for each event. Returns a function that ends it."""
        return self._events.add(lambda event: listener(event) if event else None)

    def events(self) -> AsyncIterator[SessionEvent]:
        """All events from now on: `async for event in chat.events()`."""
        return self._events.iterate()

    # -- what one can do ------------------------------------------------------------------------------------------

    def send(self, text: str, *, on_busy: OnBusy = "enqueue", message_id: str | None = None) -> asyncio.Future[str]:
        """Send a message, now or when there is a connection again. It is in `state.messages` at once.

        The result need not be awaited. It is the id of its turn when the server has stored it, or a ChatError if it was
        refused. The message then has the status `refused`; `retry` sends it again, `discard` removes it.
        `on_busy`: while another turn runs, wait, be refused as `busy`, or stop everything else and run this one.
        `message_id`: 1 to 128 visible ASCII characters. The same id is never a second message."""
        text.encode()  # a half of a surrogate pair is no text, and raises ValueError here
        message_id = message_id or str(uuid.uuid4())
        user = ChatMessage(message_id, None, "user", text, "sending", datetime.now(UTC).isoformat())
        answer = self._command(
            {"type": "message", "id": message_id, "client_message_id": message_id, "content": text, "on_busy": on_busy}
        )
        self._change(with_local(self._state, user))
        return answer

    def interrupt(self, text: str) -> asyncio.Future[str]:
        """Stop everything that runs or waits, and answer this."""
        return self.send(text, on_busy="interrupt")

    def cancel(self, turn_id: str | None = None) -> asyncio.Future[str]:
        """Stop a turn: the given one, else the one that runs, else the first that waits. The text so far is kept."""
        if turn_id is None and self._state.reply:
            turn_id = self._state.reply.turn_id
        if turn_id is None and self._state.queue:
            turn_id = self._state.queue[0]
        return self._command({"type": "cancel", "id": f"cancel:{turn_id}", "turn_id": turn_id})

    def retry(self, what: ChatMessage | str) -> asyncio.Future[str]:
        """Try a message with `can_retry`, or a turn by its id, again: the same turn with a new reply, or the sending of
        a refused message."""
        if isinstance(what, str):
            turn_id = what
        elif what.turn_id is None:
            return self.send(what.text, message_id=what.id)
        else:
            turn_id = what.turn_id
        return self._command({"type": "retry", "id": retry_id(turn_id), "turn_id": turn_id})

    def discard(self, message: ChatMessage) -> None:
        """Remove a refused message."""
        if message.status == "refused":
            self._change(without_local(self._state, message.id))

    async def ended(self, turn_id: str) -> ChatTurn:
        """A turn that is shown, when it has ended: `(await chat.ended(await chat.send("Hello"))).reply`.

        Raises ChatError: `not_found`, or why the connection is closed."""
        async for state in self.states():
            turn = next((turn for turn in state.turns if turn.id == turn_id), None)
            if turn is None:
                raise ChatError("not_found", "There is no such turn.")
            if not is_open(turn):
                return turn
            if state.connection == "closed":
                raise state.error or _closed()
        raise _closed()

    async def load_older(self) -> bool:
        """Load older messages into `state.messages`. Returns whether there are more; nothing is loaded while the server
        cannot be reached."""
        return await self._loading.older()

    async def request(self, path: str, **options: Any) -> Any:
        """The answer of the REST API: `await chat.request("agent/memory", params={"query": "tea"})`.

        `method`, `body`, `params` and `headers`. Raises ChatError."""
        return await self._rest.json(path, **options)

    # -- the connection -------------------------------------------------------------------------------------------

    def _new_connection(self) -> Connection:
        transports: list[OpenLink] = []
        if self._transport != "sse":
            transports.append(SocketLink)
        if self._transport != "websocket":
            transports.append(partial(StreamLink, self._rest))
        return Connection(
            ConnectionOptions(self._rest.api, self._get_token, transports, self._receive, self._show_status)
        )

    async def _stay_connected(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:
            self._show_status("closed", ChatError("internal_error", "The client failed; the log says why."))
            raise

    def _show_status(self, connection: ConnectionStatus, error: ChatError | None) -> None:
        self._change(replace(self._state, connection=connection, error=error))
        if connection == "closed":
            self._stop_reloading()

    def _receive(self, frame: Frame) -> None:
        if retried := self._outbox.receive(frame):
            self._change(reopened(self._state, retried))
        if frame["type"] == "ready":
            self._greet(frame["user_id"])
        self._change(reduce(self._state, frame))
        if frame["type"] == "history.deleted":
            self._stop_reloading()
        if frame["type"] == "ready":
            self._outbox.flush()
            if not frame["resumed"]:
                self._stop_reloading()
                self._reloading = self._begin(self._loading.missed(frame))
        elif frame["type"] != "ack" and frame["type"] != "error" and frame["type"] != "pong" and "seq" in frame:
            self._events.emit(frame)

    def _greet(self, user_id: str) -> None:
        """The first connection of a user: nobody else's messages stay, and those of a previous run are sent."""
        if self._state.user_id == user_id:
            return
        if self._state.user_id:
            self._outbox.clear(_closed())
            self._change(ChatState(connection="online"))
        for message in self._outbox.restore(user_id):
            self.send(
                message["content"],
                message_id=message["client_message_id"],
                on_busy=message.get("on_busy", "enqueue"),
            )

    def _stop_reloading(self) -> None:
        if self._reloading:
            self._reloading.cancel()

    # -- commands and changes -------------------------------------------------------------------------------------

    def _command(self, command: Answered) -> asyncio.Future[str]:
        """The answer may be ignored: what an app shows is in the state."""
        if self._is_closed:
            raise _closed()
        answer = self._outbox.add(command)
        if command["type"] == "message":
            answer.add_done_callback(partial(self._message_answered, id_of(command)))
        mine = asyncio.shield(answer)  # whoever stops waiting for it stops nothing
        mine.add_done_callback(lambda future: future.cancelled() or future.exception())
        return mine

    def _message_answered(self, message_id: str, answer: asyncio.Future[str]) -> None:
        error = answer.exception()
        if error is None:
            self._change(acknowledged(self._state, message_id, answer.result()))
        elif isinstance(error, ChatError) and error.code != "closed":
            self._mark(message_id, status="refused", error=error, can_retry=True)

    def _transmit(self, command: Answered) -> None:
        limits = self._state.limits
        if limits and len(encoded(command).encode()) > limits["frame_bytes"]:
            self._begin(self._send_over_rest(command))
        elif self._connection:
            self._connection.send(command)

    async def _send_over_rest(self, command: Answered) -> None:
        """A frame cannot be that large."""
        for frame in await answer_over_rest(self._rest, command):
            self._receive(frame)

    def _mark(self, message_id: str, **changes: Any) -> None:
        self._change(with_local_changed(self._state, message_id, **changes))

    def _change(self, state: ChatState) -> None:
        self._state = state
        if not self._is_notifying:
            self._is_notifying = True
            asyncio.get_running_loop().call_soon(self._notify)

    def _notify(self) -> None:
        self._is_notifying = False
        self._states.emit(self._state)

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """`close` ends it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
