"""The demo model as a service of the local stack; it runs if OPENAI_API_KEY is not set."""

import sys

from server.stack.health import responds
from server.stack.layout import LOOPBACK, Layout
from server.stack.service import Command, Service

WORD_DELAY = "DEMO_MODEL_WORD_DELAY"


class DemoModel(Service):
    """The demo model, run by the server's interpreter."""

    name = "model"

    def command(self) -> Command:
        """The demo model's server."""
        environ = self.layout.environ
        env = self.layout.base_environment() | {name: environ[name] for name in (WORD_DELAY,) if name in environ}
        return Command(
            argv=(sys.executable, "-P", "-m", "server.stack.demo_model", "--host", LOOPBACK, "--port", str(self.port)),
            env=env,
            cwd=self.layout.folder("model"),
            stop_seconds=2,
        )

    async def healthy(self) -> bool:
        """Whether its list of models returns 200."""
        return await responds(f"{demo_model_url(self.layout)}/models")


def demo_model_url(layout: Layout) -> str:
    """The base URL of its OpenAI-compatible API."""
    return f"http://{LOOPBACK}:{layout.port('model')}/v1"
