"""The command `chat talk`: options, the sign-in, and exit codes."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory
from prompt_toolkit.input import create_input

from ai_chat_client.auth import KEY, Auth
from ai_chat_client.chat import Chat
from ai_chat_client.errors import ChatError
from ai_chat_client.talk.clean import clean, one_line
from ai_chat_client.talk.conversation import Conversation
from ai_chat_client.talk.paint import sentence
from ai_chat_client.talk.plain import answer
from ai_chat_client.talk.screen import steady_output
from ai_chat_client.talk.sign_in import about, enter_demo, sign_in
from ai_chat_client.talk.storage import FileStorage, place_of
from ai_chat_client.tokens import GetToken

LOCAL: Final = "http://127.0.0.1:8080"
EXIT_CODES: Final = {
    "network": 3,
    "unauthorized": 4,
    "not_signed_in": 4,
    "token_expired": 4,
    "account_blocked": 5,
    "budget_exceeded": 6,
}
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Options:
    url: str
    email: str | None
    name: str | None
    demo: bool
    api_key: str | None


@click.command()
@click.argument("message", nargs=-1)
@click.option("--url", envvar="CHAT_URL", show_envvar=True, default=LOCAL, show_default=True, help="The server.")
@click.option("--email", metavar="ADDRESS", help="Sign in, or register, with this address.")
@click.option("--name", help="Your name for the agent, at registration.")
@click.option("--demo", is_flag=True, help="Be the demo user that a server for development offers.")
@click.option("--api-key", envvar="CHAT_API_KEY", show_envvar=True, help="Use an API key instead of a sign-in.")
@click.option("--sign-out", "leaves", is_flag=True, help="Sign out, and delete what is stored on this machine.")
def talk(
    *,
    message: tuple[str, ...],
    url: str,
    email: str | None,
    name: str | None,
    demo: bool,
    api_key: str | None,
    leaves: bool,
) -> None:
    """Talk to your agent in this terminal.

    With a MESSAGE, or with text on standard input, the reply is written to standard output and the command ends. The
    sign-in is kept; $CHAT_PASSWORD replaces the question for the password.

    Exit codes: 0 answered, 1 failed, 2 wrong usage, 3 the server cannot be reached, 4 not signed in, 5 the account is
    blocked, 6 the budget is used up."""
    if not url.startswith(("http://", "https://")):
        raise click.UsageError(f"The server's address must begin with https:// or http://: {clean(url)}")
    options = Options(url.rstrip("/"), email, name, demo, api_key)
    storage = FileStorage(place_of(url))
    try:
        asyncio.run(_sign_out(options.url, storage) if leaves else _talk(options, storage, " ".join(message)))
    except ChatError as error:
        told = sentence(error)
        if error.code == "network":
            told += (
                f" Is there a server at {url}? `chat up` starts one on this machine." if url == LOCAL else f" ({url})"
            )
        click.echo(f"chat: {told}", err=True)
        sys.exit(EXIT_CODES.get(error.code, 1))
    except OSError as error:
        click.echo(f"chat: {clean(str(error))}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, EOFError, asyncio.CancelledError):
        sys.exit(INTERRUPTED)


async def _talk(options: Options, storage: FileStorage, message: str) -> None:
    has_screen = not message and _is_terminal() and os.environ.get("TERM") != "dumb"
    if not has_screen and not sys.stdin.isatty():
        message = "\n\n".join(part for part in (message, sys.stdin.read().strip()) if part)
    if not has_screen and not message:
        raise click.UsageError("There is no message: name one, or run this in a terminal.")
    token, title = await _token(options, storage)
    async with Chat(options.url, token, storage=storage) as chat:
        if not has_screen:
            await _until_interrupted(answer(chat, message, _write, as_it_comes=sys.stdout.isatty()))
            return
        await _connected(chat)
        model = (await about(options.url)).get("model") or {}
        terminal = create_input(), steady_output()
        history = FileHistory(str(storage.history()))
        try:
            await Conversation(chat, title, terminal, history, is_demo=bool(model.get("is_demo"))).run()
        except ChatError as error:
            if error.code in ("unauthorized", "not_signed_in"):
                storage.pop(KEY, None)  # the next run asks
            raise


async def _until_interrupted(work: Coroutine[Any, Any, None]) -> None:
    """Do it; Ctrl-C cancels it once, however often it arrives: `uv run` forwards the one that the terminal sends."""
    task, loop = asyncio.ensure_future(work), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: task.cancelling() or task.cancel())
    try:
        await task
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def _token(options: Options, storage: FileStorage) -> tuple[GetToken | str, str]:
    """The token, or how to get one, and whom one talks as and where. Raises ChatError."""
    place = options.url.partition("://")[2]
    if options.api_key:
        return options.api_key, f"API key at {place}"
    auth = Auth(options.url, storage, app="chat-talk", lock=storage.lock)
    known = auth.user
    if options.demo:
        await enter_demo(auth, (await about(options.url)).get("demo_user"))
    elif known is None or options.email not in (None, known["email"]) or await auth.get_token() is None:
        await sign_in(auth, options.url, _Terminal(), options.email, options.name)
    user = auth.user
    return auth.get_token, f"{user['email'] if user else ''} at {place}"


async def _connected(chat: Chat) -> None:
    """Return when there is a connection. Raises ChatError if there will be none, or if nobody answers."""
    async for state in chat.states():
        if state.connection == "online":
            return
        if state.error and (state.connection == "closed" or state.error.code == "network"):
            raise state.error


async def _sign_out(url: str, storage: FileStorage) -> None:
    await Auth(url, storage).sign_out()
    storage.forget()
    click.echo("Signed out.")


class _Terminal:
    """Asks on the terminal; a pipe cannot be asked."""

    async def ask(self, question: str, *, is_secret: bool = False) -> str:
        if is_secret and (password := os.environ.get("CHAT_PASSWORD")):
            return password
        if not _is_terminal():
            raise ChatError("not_signed_in", "You are not signed in here: run `chat talk` in a terminal once.")
        session: PromptSession[str] = PromptSession(output=steady_output())
        return await session.prompt_async(f"{one_line(question)} ", is_password=is_secret)

    def say(self, text: str) -> None:
        if _is_terminal():
            click.echo(one_line(text))


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
