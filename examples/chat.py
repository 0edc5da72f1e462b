"""A terminal chat on the Python client: signs in, shows replies as they are written, and survives lost connections.

    uv run python examples/chat.py --email me@example.com [--url http://127.0.0.1:8080]

Everything that a connection needs is in `clients/python`; here is what a terminal adds."""

import argparse
import asyncio
import getpass
import os
import sys
import threading
from collections.abc import AsyncIterator

from ai_chat_client import Auth, Chat, ChatError, ChatMessage, ChatState, ChatTurn

HELP = "Type a message; /stop ends the reply, /retry repeats the last turn, /memory, /usage, /quit."


class Screen:
    """Prints what is new in each state. What was printed stays: after an interruption a reply is printed from its
    beginning."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._ended: set[tuple[str | None, int]] = set()
        """Turns with the number of the attempt whose end was printed."""
        self._line: tuple[str, str] | None = None
        """The reply that the cursor stands behind: its id, and the text so far."""
        self._connection = ""

    def show(self, state: ChatState) -> None:
        if state.connection == "offline" != self._connection:
            self.say(f"(reconnecting: {state.error.message if state.error else ''})")
        self._connection = state.connection
        for turn in state.turns:
            is_wanted = turn.id in self._open or (turn.reply and turn.reply.status == "streaming")
            if is_wanted and (turn.id, turn.attempt) not in self._ended:
                self._show_turn(turn)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        sys.stdout.write(f"\n{text}\n")
        sys.stdout.flush()
        self._line = None

    def expect(self, turn_id: str) -> None:
        """Show this turn's end, also if it is never seen running."""
        self._open.add(turn_id)

    def _show_turn(self, turn: ChatTurn) -> None:
        if turn.id and turn.id not in self._open:
            self._open.add(turn.id)
            if turn.user and turn.user.id == f"{turn.id}:user":
                self.say(f"(elsewhere) you: {turn.user.text}")
        if turn.reply and turn.reply.text:
            self._show_text(turn.reply)
        message = turn.reply or turn.user
        if message and turn.id and (message.error or message.status in ("complete", "partial", "failed", "unsent")):
            self._open.discard(turn.id)
            self._ended.add((turn.id, turn.attempt))
            self.say(outcome(message))

    def _show_text(self, reply: ChatMessage) -> None:
        known_id, known = self._line or ("", "")
        if known_id != reply.id or not reply.text.startswith(known):
            sys.stdout.write("\nagent: ")
            known = ""
        sys.stdout.write(reply.text[len(known) :])
        sys.stdout.flush()
        self._line = (reply.id, reply.text)


def outcome(message: ChatMessage) -> str:
    if message.error:
        return f"! {message.error.message}{' /retry?' if message.can_retry else ''}"
    if message.status == "complete" and message.usage:
        tools = "".join(f"[{tool.name}] " for tool in message.tools)
        return f"  {tools}({message.usage['total_tokens']} tokens, ${message.cost})"
    return f"  ({message.note or message.status})"


async def execute(chat: Chat, screen: Screen, line: str) -> None:
    """Execute one line of input. Raises ChatError."""
    match line:
        case "/stop":
            await chat.cancel()
        case "/retry":
            last = next((message for message in reversed(chat.state.messages) if message.can_retry), None)
            if last:
                await follow(chat, screen, chat.retry(last))
        case "/memory":
            for block in (await chat.request("agent/memory"))["blocks"]:
                screen.say(f"{block['label']}: {block['value']}")
        case "/usage":
            total = (await chat.request("user/usage"))["total"]
            screen.say(f"{total['messages']} messages, {total['tokens']} tokens, ${total['cost']}")
        case _ if line.startswith("/"):
            screen.say(HELP)
        case _:
            await follow(chat, screen, chat.send(line))


async def follow(chat: Chat, screen: Screen, accepted: asyncio.Future[str]) -> None:
    turn_id = await accepted
    screen.expect(turn_id)
    await chat.ended(turn_id)


async def converse(chat: Chat, screen: Screen) -> None:
    """Execute all lines of input, each at once, and return when what they began has ended."""

    async def answer(line: str) -> None:
        try:
            await execute(chat, screen, line)
        except ChatError as error:
            screen.say(f"! {error.message}")

    async with asyncio.TaskGroup() as turns:
        async for line in typed_lines():
            turns.create_task(answer(line))


async def typed_lines() -> AsyncIterator[str]:
    """The lines of standard input, read by a thread, so that the event loop is not blocked."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    while (line := await lines.get()) is not None and line != "/quit":
        if line:
            yield line


async def sign_in(auth: Auth, email: str, password: str, name: str | None) -> None:
    """Sign in; if that fails, register. Raises ChatError."""
    try:
        await auth.sign_in(email, password)
    except ChatError as error:
        if error.code != "unauthorized":
            raise
        if await auth.register(email, password, name) is None:
            raise ChatError("unauthorized", "Wrong password, or the address waits for its confirmation mail.") from None


async def main(options: argparse.Namespace) -> None:
    password = options.password or getpass.getpass("Password: ")
    auth, screen = Auth(options.url), Screen()
    await sign_in(auth, options.email, password, options.name)
    screen.say(HELP)
    async with Chat(options.url, auth.get_token) as chat:
        showing = asyncio.create_task(show(chat, screen))
        talking = asyncio.create_task(converse(chat, screen))
        done, open_tasks = await asyncio.wait({showing, talking}, return_when=asyncio.FIRST_COMPLETED)
        screen.show(chat.state)
        for task in open_tasks:
            task.cancel()
        await asyncio.gather(*open_tasks, return_exceptions=True)
        for task in done:
            task.result()


async def show(chat: Chat, screen: Screen) -> None:
    """Until the connection is closed for good. Raises ChatError."""
    async for state in chat.states():
        screen.show(state)
        if state.connection == "closed" and state.error:
            raise state.error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Talk to your agent from a terminal.")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the server (default: %(default)s)")
    parser.add_argument("--email", required=True, help="your e-mail address; registered if it is new")
    parser.add_argument("--password", default=os.environ.get("CHAT_PASSWORD"), help="or $CHAT_PASSWORD, or a prompt")
    parser.add_argument("--name", help="your name for the agent, at registration")
    try:
        asyncio.run(main(parser.parse_args()))
    except KeyboardInterrupt:
        sys.exit(130)
    except ChatError as refusal:
        sys.exit(f"! {refusal.message}")
