"""The API server itself, as the last service of the stack: `chat serve` with the local services' addresses."""

import sys
from pathlib import Path

from server.stack import preflight
from server.stack.health import responds
from server.stack.layout import LOOPBACK
from server.stack.service import Command, Service
from server.stack.stack_env import stack_environment

NOT_PASSED_ON = ("REDIS_URL", "SUPABASE_JWT_SECRET", "PYTHONDONTWRITEBYTECODE")
DRAIN_SECONDS = "5"
"""The deadline of running turns when the stack stops; unfinished ones are recovered at the next start."""


class ApiServer(Service):
    """The platform's own process."""

    name = "server"
    depends_on = ("supabase", "letta", "litellm")

    async def prepare(self) -> None:
        """Check the port again: another program may have bound it since `chat up` started."""
        preflight.check_port(LOOPBACK, self.port)

    def command(self) -> Command:
        """The running interpreter, with the caller's environment (such as limits), overridden by the stack's."""
        inherited = {name: value for name, value in self.layout.environ.items() if name not in NOT_PASSED_ON}
        return Command(
            argv=(sys.executable, "-m", "server", "serve"),
            env={"DRAIN_SECONDS": DRAIN_SECONDS, **inherited, **stack_environment(self.layout)},
            cwd=Path.cwd(),
            stop_seconds=8,
        )

    async def healthy(self) -> bool:
        """Whether its health endpoint returns 200."""
        return await responds(f"http://{LOOPBACK}:{self.port}/health")
