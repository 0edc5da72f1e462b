"""Signing in from a terminal, with registration and confirmation of the address."""

from collections.abc import Mapping
from typing import Any, Protocol

import httpx

from ai_chat_client.auth import Auth
from ai_chat_client.errors import ChatError, network_error
from ai_chat_client.rest import TIMEOUT, api_of


class Terminal(Protocol):
    """Asks a person."""

    async def ask(self, question: str, *, is_secret: bool = False) -> str: ...

    def say(self, text: str) -> None: ...


async def sign_in(auth: Auth, url: str, terminal: Terminal, email: str | None, name: str | None) -> None:
    """Sign in, or register after a question. Raises ChatError."""
    if email is None:
        demo = (await about(url)).get("demo_user")
        terminal.say("You are not signed in here. With a new address you can register.")
        if demo:
            terminal.say("Without an address you are the demo user.")
        email = (await terminal.ask("E-mail:")).strip()
        if demo and not email:
            await enter_demo(auth, demo)
            return
    password = await terminal.ask("Password:", is_secret=True)
    try:
        await auth.sign_in(email, password)
    except ChatError as error:
        if error.code != "unauthorized":
            raise
        answer = await terminal.ask(f"{error.message} Register {email}? [y/N]")
        if answer.strip().lower() not in ("y", "yes"):
            raise
        await _register(auth, terminal, email, password, name)


async def about(url: str) -> Mapping[str, Any]:
    """What the server says of itself; nothing where it is an older one. Raises ChatError: it cannot be reached."""
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT) as http:
            answer = await http.get(f"{api_of(url)}/about")
        found = answer.json() if answer.is_success else {}
    except httpx.HTTPError:
        raise network_error() from None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


async def enter_demo(auth: Auth, demo: Mapping[str, str] | None) -> None:
    """Sign in as the user that a server for development offers, and make that account if it is not there. Raises
    ChatError."""
    if demo is None:
        raise ChatError("not_signed_in", "This server offers no demo user.")
    email, password = demo["email"], demo["password"]
    try:
        await auth.sign_in(email, password)
    except ChatError as error:
        if error.code != "unauthorized" or await auth.register(email, password, "Demo") is None:
            raise


async def _register(auth: Auth, terminal: Terminal, email: str, password: str, name: str | None) -> None:
    if await terminal.ask("The same password again:", is_secret=True) != password:
        raise ChatError("unauthorized", "The two passwords are different.")
    if name is None:
        name = (await terminal.ask("Your name, for the agent (or nothing):")).strip()
    if await auth.register(email, password, name or None) is not None:
        return
    terminal.say(f"A mail to {email} has a code and a link. (`chat mails` shows those of a local stack.)")
    while True:
        code = (await terminal.ask("The code, or nothing once you have opened the link:")).strip()
        try:
            await (auth.confirm(email, code) if code else auth.sign_in(email, password))
        except ChatError as error:
            if error.code not in ("otp_expired", "unauthorized", "invalid_request"):
                raise
            terminal.say(error.message)
        else:
            return
