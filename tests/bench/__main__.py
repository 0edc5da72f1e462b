"""`python -m tests.bench all`, or one of them: each prints its figures side by side."""

import os
import signal
import sys
from pathlib import Path

import click

from tests.bench import everything, instances, specified_stack
from tests.bench import first_token as first_token_bench
from tests.bench import flame as flames
from tests.bench import growth as growth_bench
from tests.bench import idle as idle_bench
from tests.bench import letta as letta_bench
from tests.bench import load as load_bench
from tests.bench import registration as registration_bench
from tests.bench import relay as relay_bench
from tests.bench import sse as sse_bench
from tests.bench import turn as turn_bench
from tests.bench.stack import redis_at
from tests.stack.patches import ALL

SESSIONS = click.option("--sessions", default=200, show_default=True)
CHUNKS = click.option("--chunks", default=200, show_default=True)
RATE = click.option("--rate", default=20.0, show_default=True, help="Chunks per second and session.")
ROUNDS = click.option("--rounds", default=3, show_default=True)


@click.group()
def main() -> None:
    """Benchmarks. Compare only figures of one run."""


@main.command()
@SESSIONS
@CHUNKS
@RATE
@ROUNDS
@click.option("--redis", metavar="URL", help="Measure two instances around this Redis as well.")
def relay(sessions: int, chunks: int, rate: float, rounds: int, redis: str | None) -> None:
    """Chunk latency and CPU per chunk against a bare relay."""
    relay_bench.main(sessions, chunks, rate, rounds, redis)


@main.command()
@click.option("--sessions", default=100, show_default=True)
@CHUNKS
@RATE
@ROUNDS
def specified(sessions: int, chunks: int, rate: float, rounds: int) -> None:
    """A relay of FastAPI, uvicorn and letta-client, against the bare relay and ours."""
    specified_stack.main(sessions, chunks, rate, rounds)


@main.command()
@SESSIONS
@CHUNKS
@RATE
@ROUNDS
def sse(sessions: int, chunks: int, rate: float, rounds: int) -> None:
    """CPU per chunk of an event stream against a WebSocket."""
    sse_bench.main(sessions, chunks, rate, rounds)


@main.command()
@click.option("--sessions", default=1000, show_default=True)
@click.option("--chunks", default=100, show_default=True)
@RATE
@click.option("--redis", metavar="URL", help="Replicate to this Redis, and leave out twice the rate.")
def load(sessions: int, chunks: int, rate: float, redis: str | None) -> None:
    """Latency of many sessions, and at twice their rate: memory, /ready, REST, and whether anything is lost."""
    if redis is None:
        load_bench.main(sessions, chunks, rate)
    else:
        load_bench.main_with_redis(sessions, chunks, rate, redis)


@main.command()
@click.option("--connections", default=1000, show_default=True)
def idle(connections: int) -> None:
    """Memory per idle connection against bare aiohttp."""
    idle_bench.main(connections)


@main.command()
@click.option("--connections", default=10_000, show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="How long they are watched.")
def idle_many(connections: int, seconds: float) -> None:
    """Memory and keep-alive of ten thousand idle sockets at one process."""
    idle_bench.main_many(connections, seconds)


@main.command()
@SESSIONS
@CHUNKS
@RATE
@ROUNDS
@click.option("--redis", metavar="URL", help="This Redis instead of one of the benchmark's own.")
def redis(sessions: int, chunks: int, rate: float, rounds: int, redis: str | None) -> None:
    """CPU per chunk of two instances around a Redis against one alone, and Redis's own."""
    with redis_at(redis) as url:
        instances.main(sessions, chunks, rate, rounds, url)


@main.command()
@click.option("--rounds", default=20, show_default=True)
def first_token(rounds: int) -> None:
    """Time to first token against calling Letta directly, on the running test stack."""
    first_token_bench.main(rounds)


@main.command()
@click.option("--users", default=8, show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="How long they talk without pause.")
@click.option("--turns", default=10, show_default=True, help="Turns whose calls are counted.")
@click.option("--settle", default=turn_bench.SETTLED_SECONDS, show_default=True, help="Seconds after these turns.")
def turn(users: int, seconds: float, turns: int, settle: float) -> None:
    """The server's processor time per turn and its calls, on the running test stack."""
    turn_bench.main(users, seconds, turns, settle)


@main.command()
@click.option("--users", default=50, show_default=True)
@click.option("--streams", default=8, show_default=True, help="Users whose replies stream meanwhile.")
@click.option("--quiet", default=8.0, show_default=True, help="Seconds of streams before the burst.")
@click.option("--real", default=0, show_default=True, help="So many users with the stack's Letta and LiteLLM as well.")
def registration(users: int, streams: int, quiet: float, real: int) -> None:
    """A burst of registrations: time per step, and what running streams notice, on the running test stack."""
    registration_bench.main(users, streams, quiet, real)


@main.command()
@click.option("--messages", default=100_000, show_default=True, help="Leave out longer histories.")
def growth(messages: int) -> None:
    """Database time of a turn's steps and of reads, by the length of the history and the number of users."""
    growth_bench.main([case for case in growth_bench.CASES if case[1] <= messages])


@main.command(name="all")
@click.argument("names", nargs=-1, type=click.Choice(everything.NAMES))
@click.option("--markdown", is_flag=True, help="Print the table as docs/performance.md has it.")
def all_of_them(names: tuple[str, ...], markdown: bool) -> None:
    """All figures and their aims as one table; or those of the benchmarks that are named. Starts the test stack."""
    sys.exit(everything.main(names, markdown=markdown))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--folder", default=".chat-flames", show_default=True, type=click.Path(file_okay=False, path_type=Path))
@click.argument("benchmark", nargs=-1, required=True, type=click.UNPROCESSED)
def flame(folder: Path, benchmark: tuple[str, ...]) -> None:
    """Flame graphs of each process that a benchmark measures: `flame relay --rounds 1`."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[flames.FOLDER] = str(folder)
    main(benchmark)


@main.command()
@click.option("--users", default=8, show_default=True, help="How many talk at once, without pause.")
@click.option("--seconds", default=30.0, show_default=True, help="The length of a round.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--released", is_flag=True, help="Measure a Letta without patches as well, in alternate rounds.")
@click.option("--without", type=click.Choice(sorted(ALL)), multiple=True, help="Measure one without this patch, too.")
@click.option("--workers", type=int, help="Measure a Letta of so many workers as well.")
@click.option("--pool", type=int, help="Measure a Letta with so many database connections as well.")
def letta(
    users: int,
    seconds: float,
    rounds: int,
    released: bool,
    without: tuple[str, ...],
    workers: int | None,
    pool: int | None,
) -> None:
    """Turns per second, and what each service spends on a turn, on the running test stack."""
    variants = [letta_bench.RELEASED] if released else []
    variants += [letta_bench.Variant(f"without {patch}", (patch,)) for patch in without]
    if workers is not None:
        variants.append(letta_bench.Variant(f"with {workers} workers", workers=workers))
    if pool is not None:
        variants.append(letta_bench.Variant(f"with a pool of {pool} connections", pool=pool))
    letta_bench.main(users, seconds, rounds, variants)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    main()
