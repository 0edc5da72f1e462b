"""`python -m tests.bench relay | idle | first-token`: each prints its figures side by side."""

import click

from tests.bench import first_token as first_token_bench
from tests.bench import idle as idle_bench
from tests.bench import relay as relay_bench


@click.group()
def main() -> None:
    """Benchmarks. Compare only figures of one run."""


@main.command()
@click.option("--sessions", default=200, show_default=True)
@click.option("--chunks", default=200, show_default=True)
@click.option("--rate", default=20.0, show_default=True, help="Chunks per second and session.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--redis", metavar="URL", help="Measure two instances around this Redis as well.")
def relay(sessions: int, chunks: int, rate: float, rounds: int, redis: str | None) -> None:
    """Chunk latency and CPU per chunk against a bare relay."""
    relay_bench.main(sessions, chunks, rate, rounds, redis)


@main.command()
@click.option("--connections", default=1000, show_default=True)
def idle(connections: int) -> None:
    """Memory per idle connection against bare aiohttp."""
    idle_bench.main(connections)


@main.command()
@click.option("--rounds", default=20, show_default=True)
def first_token(rounds: int) -> None:
    """Time to first token against calling Letta directly, on the running test stack."""
    first_token_bench.main(rounds)


if __name__ == "__main__":
    main()
