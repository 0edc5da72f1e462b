"""What goes wrong in a browser without being seen: errors in the console, violations of the page's policy, refused
requests. Any of it fails the test, unless the test expects it."""

import re
from dataclasses import dataclass, field

from playwright.async_api import BrowserContext, ConsoleMessage, Page, Response, WebError

REQUESTS = re.compile(r"^(Failed to load resource|WebSocket connection to)")
"""What the browser says of requests that fail: those that are answered are watched themselves, and the others are cut
by the test."""
BEING_MADE = "503 agent/memory"
"""On a busy machine a new user's agent may take longer than this request waits. The console says so, and asks again."""
VIOLATION = """addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`))"""


@dataclass
class Watch:
    """Of all pages of one browser profile. `expected`: refusals such as "401 auth/login", without the query."""

    responses: list[Response] = field(default_factory=list)
    found: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=lambda: {BEING_MADE})

    async def follow(self, context: BrowserContext) -> None:
        await context.add_init_script(VIOLATION)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("response", self._response)
        context.on("page", self._page)

    def expect(self, *refusals: str) -> None:
        self.expected.update(refusals)

    def check(self) -> None:
        wrong = [line for line in self.found if line not in self.expected]
        assert not wrong, wrong

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not REQUESTS.match(message.text):
            self.found.append(message.text)

    def _error(self, error: WebError) -> None:
        self.found.append(f"exception: {error.error}")

    def _response(self, response: Response) -> None:
        self.responses.append(response)
        if response.status >= 400:
            path = response.url.split("?")[0].split("/", 3)[3].removeprefix("api/v1/")
            self.found.append(f"{response.status} {path}")

    def _page(self, page: Page) -> None:
        page.on("crash", lambda _: self.found.append("the page crashed"))
