"""A deploy while turns run: the last release's server serves while this release's migration changes the schema, and is
then replaced by this release's server."""

import asyncio
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import psycopg
import pytest

from server.adapters.supabase.migration_files import REPEATABLE, project_migrations, read_migrations
from tests.faults.clients import Device, all_quiet
from tests.faults.marathon import Line, Talker
from tests.reconcile.conversations import NAMES, ConversationReconciler
from tests.reconcile.report import table
from tests.stack.chat_client import register
from tests.stack.forked import ROOT
from tests.stack.own_server import ServerProcess, server_environment
from tests.stack.own_supabase import once_more, own_supabase
from tests.stack.running_stack import RunningStack, free_port
from tests.stack.schema import last_release, last_release_commit

TIMEOUT: Final = 120.0
LAST, THIS = "the last release", "this release"
REPEATABLE_ONES = [migration for migration in read_migrations(project_migrations()) if migration.is_repeatable]


def archived(commit: str) -> bytes | None:
    """The server's code at a commit, as a tar; None in a checkout without its history."""
    done = subprocess.run(["git", "archive", commit, "server"], cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


CODE = archived(last_release_commit())


class Talk:
    """Users who send messages until `end`, each from a device of their own."""

    def __init__(self) -> None:
        self.talkers: list[Talker] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._completed: Counter[str] = Counter()
        self._changed = asyncio.Condition()
        self._is_over = False

    async def run(self, talker: Talker) -> None:
        """Alternate replies of some seconds and short ones, so that some are always being written."""
        (device,) = talker.devices
        while not self._is_over:
            number = len(talker.sent)
            line = Line(f"SLOW 30 0.05 part {number}" if number % 2 else f"ECHO the answer to question {number}")
            message = await device.say(line.content)
            talker.sent[message] = line
            turn = await device.end_of(message, timeout=TIMEOUT)
            assert turn["status"] == "completed", turn
            async with self._changed:
                self._completed[talker.user.id] += 1
                self._changed.notify_all()

    async def completes(self, replies: int) -> None:
        """Return when each user has received this many further replies."""
        goals = {talker.user.id: self._completed[talker.user.id] + replies for talker in self.talkers}
        async with asyncio.timeout(TIMEOUT), self._changed:
            await self._changed.wait_for(lambda: all(self._completed[user] >= goals[user] for user in goals))

    async def end(self) -> None:
        """Return when each user has received the last reply."""
        self._is_over = True
        await asyncio.gather(*self.tasks)
        await all_quiet([talker.devices[0] for talker in self.talkers])


@asynccontextmanager
async def talking(http: aiohttp.ClientSession, urls: list[str], users: int) -> AsyncIterator[Talk]:
    """Users who registered at the first url and connect to either."""
    talk = Talk()
    async with AsyncExitStack() as devices:
        for number in range(users):
            user = await register(http, urls[0], f"Talker {number}")
            talk.talkers.append(Talker(user, (await devices.enter_async_context(Device(user, urls)),)))
        async with asyncio.TaskGroup() as group:
            talk.tasks += [group.create_task(talk.run(talker)) for talker in talk.talkers]
            yield talk


async def migrate(dsn: str) -> str:
    """`chat migrate` of this release."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "migrate", "--db-url", dsn),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@contextmanager
def before_the_deploy(stack: RunningStack, which: str, folder: Path) -> Iterator[tuple[dict[str, str], Path]]:
    """A project's variables and the code that serves it.

    Without the last release's code, this one's serves, and its migration has every function to apply again."""
    if which == LAST:
        assert CODE is not None
        with tarfile.open(fileobj=io.BytesIO(CODE)) as code, last_release() as migrations:
            code.extractall(folder, filter="data")
            with own_supabase(stack, "deploy_tests", migrations=migrations) as supabase:
                yield supabase, folder
    else:
        with own_supabase(stack, "deploy_tests") as supabase:
            with psycopg.connect(supabase["SUPABASE_DB_URL"]) as connection:
                connection.execute(
                    "update supabase_migrations.schema_migrations set statements = null where starts_with(version, %s)",
                    [REPEATABLE],
                )
            yield supabase, ROOT


@pytest.mark.parametrize("before", [LAST if CODE is not None else THIS])
async def test_a_deploy_loses_nothing_while_users_talk(
    stack: RunningStack, http: aiohttp.ClientSession, tmp_path: Path, before: str
) -> None:
    port = free_port()
    with ExitStack() as running:
        supabase, code = running.enter_context(before_the_deploy(stack, before, tmp_path))
        env = server_environment(stack, supabase)
        old = running.enter_context(ServerProcess(env, tmp_path / "old.log", code=code))
        await old.ready()
        async with talking(http, [old.url, f"http://127.0.0.1:{port}"], users=2) as talk:
            await talk.completes(1)
            applied = await migrate(supabase["SUPABASE_DB_URL"])
            await talk.completes(2)
            env |= running.enter_context(once_more(stack, supabase))
            new = running.enter_context(ServerProcess(env, tmp_path / "new.log", port))
            await new.ready()
            await talk.completes(1)
            old.terminate()
            assert await old.stopped() == 0, old.log_tail()
            await talk.completes(2)
            await talk.end()
            reconciler = ConversationReconciler(env, http)
            reports = [await reconciler.of(talker) for talker in talk.talkers]
    assert [report.wrong for report in reports] == [[], []], table(NAMES, [report.counts for report in reports])
    assert all(f"applied {migration.label}\n" in applied for migration in REPEATABLE_ONES)
