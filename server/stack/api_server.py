"""The API server itself, as the last service of the stack: `chat serve` with the local services' addresses."""

import sys
from pathlib import Path

from server.stack import preflight
from server.stack.health import answers
from server.stack.layout import LOOPBACK
from server.stack.service import Command, Service
from server.stack.stack_env import stack_environment

NOT_PASSED_ON = ("REDIS_URL", "SUPABASE_JWT_SECRET", "PYTHONDONTWRITEBYTECODE")
DRAIN_SECONDS = "5"
"""How long running turns may take to finish when the stack stops; those that don't are recovered at the next start."""


class ApiServer(Service):
    """The platform's own process."""

    name = "server"
    depends_on = ("supabase", "letta", "litellm")

    async def prepare(self) -> None:
        """Look at the port again: a program that took it meanwhile would answer in this server's place."""
        preflight.check_port(LOOPBACK, self.port)

    def command(self) -> Command:
        """The running interpreter, with the caller's environment (limits and the like) and the stack's on top."""
        inherited = {name: value for name, value in self.layout.environ.items() if name not in NOT_PASSED_ON}
        return Command(
            argv=(sys.executable, "-m", "server", "serve"),
            env={"DRAIN_SECONDS": DRAIN_SECONDS, **inherited, **stack_environment(self.layout)},
            cwd=Path.cwd(),
            stop_seconds=8,
        )

    async def healthy(self) -> bool:
        """Whether its health endpoint answers."""
        return await answers(f"http://{LOOPBACK}:{self.port}/health")
