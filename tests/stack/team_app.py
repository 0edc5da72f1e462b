"""A team's own app in a real browser: it signs in with supabase-js and talks to Supabase and to the server."""

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from server.stack.mails import Mail, read_mails

PASSWORD = "Passw0rd-2026"

CONNECT = """([url, key]) => {
  window.client = supabase.createClient(url, key);
  window.api = async (url, token, options = {}) => {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    const response = await fetch(url, { ...options, headers: { ...headers, ...options.headers } });
    return { status: response.status, body: await response.json() };
  };
}"""


@dataclass(frozen=True, slots=True)
class TeamApp:
    """An open page of the app. `env` names the Supabase project, `api` the server."""

    page: Page
    origin: str
    env: dict[str, str]
    api: str
    mail_file: Path

    async def open(self, path: str = "/") -> None:
        """Go to one of the app's pages."""
        await self.page.goto(f"{self.origin}{path}")
        await self.connect()

    async def connect(self) -> None:
        """Create the client on the open page; it reads a session from the page's address if there is one."""
        await self.page.evaluate(CONNECT, [self.env["SUPABASE_URL"], self.env["SUPABASE_ANON_KEY"]])

    async def run(self, script: str, argument: object = None) -> Any:
        """The result of JavaScript on the page: the body of an async function of `x` that can use `client` and
        `api`."""
        return await self.page.evaluate(f"async x => {{ {script} }}", argument)

    async def sign_up(self, email: str, **options: Any) -> Any:
        """`{data, error}` of supabase-js."""
        credentials = {"email": email, "password": PASSWORD, "options": options}
        return await self.run("return client.auth.signUp(x)", credentials)

    async def session(self) -> Any:
        """The client's session, null without one."""
        return await self.run("return (await client.auth.getSession()).data.session")

    async def ask(self, path: str, method: str = "GET", body: object = None) -> Any:
        """`{status, body}` of a call of the server's API with the session's token."""
        script = """
          const { data: { session } } = await client.auth.getSession();
          return api(x.url, session.access_token, { method: x.method, body: x.body && JSON.stringify(x.body) });
        """
        return await self.run(script, {"url": f"{self.api}/api/v1{path}", "method": method, "body": body})

    async def say(self, content: str) -> None:
        """Send a message; its turn must complete. An answer waits for 45 s; then the message is sent again, which
        attaches to its turn."""
        body = {"content": content, "client_message_id": uuid.uuid4().hex, "stream": False}
        while (answer := await self.ask("/chat/message", "POST", body))["status"] == 202:
            await asyncio.sleep(0.3)
        assert (answer["status"], answer["body"]["status"]) == (200, "completed"), answer

    async def human(self) -> str:
        """The `human` block of the agent's memory."""
        while (memory := await self.ask("/agent/memory"))["status"] == 503:  # a slow agent
            await asyncio.sleep(0.5)
        return str(next(block["value"] for block in memory["body"]["blocks"] if block["label"] == "human"))

    def mail_to(self, email: str, is_it: Callable[[Mail], bool] = lambda _: True) -> Mail:
        """The newest mail to the address."""
        return next(mail for mail in reversed(read_mails(self.mail_file, email)) if is_it(mail))

    async def follow(self, link: str) -> str:
        """Open a mail's link. Returns the address of the page it leads to, without the fragment; a page of the app gets
        its client."""
        await self.page.goto(link)
        address = str(await self.page.evaluate("location.origin + location.pathname + location.search"))
        if address.startswith(f"{self.origin}/"):
            await self.connect()
        return address


def fresh_address() -> str:
    return f"{uuid.uuid4().hex[:12]}@example.com"
