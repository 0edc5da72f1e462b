"""Lock the server's and the developers' packages: `python scripts/lock.py`, after a change of pyproject.toml.

Writes requirements.txt, requirements-dev.txt and the constraints in pyproject.toml, so that `uv run` uses the same
versions. Releases younger than two weeks are skipped: a malicious one is usually found by then.

`python scripts/lock.py stack` locks the local services instead, after a change of a `.in` file in
server/stack/requirements/ or of the dates here. It is not run otherwise, since a new lock causes a new installation.

`python scripts/lock.py examples` locks the examples that have packages of their own, and the benchmarks' relay."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COOLDOWN = timedelta(days=14)
HEADER = "# Locked for Python 3.11 to 3.13 by scripts/lock.py; change pyproject.toml and run it again.\n"
EXAMPLE_HEADER = "# Locked by `python scripts/lock.py examples`; change requirements.in and run it again.\n"
EXAMPLES = ("examples", "tests/bench")
BUILD_BACKEND = "hatchling\neditables\n"
"""The packages that build the project for `uv run`: [build-system], and those of an editable installation."""

STACK = "server/stack/requirements"
STACK_NEWEST = "2026-11-02T00:00:00Z"
STACK_OPTIONS = ("--generate-hashes", "--no-annotate", "--fork-strategy", "fewest")
STACK_LOCKS = {
    # Letta has no upper bounds, and newer dependencies break it; its client has the release that the server uses.
    "letta": ("2026-05-15", "--exclude-newer-package", f"letta-client={STACK_NEWEST}"),
    "litellm": (STACK_NEWEST,),
    # Programs in wheels have no Python dependencies.
    "node": (STACK_NEWEST, "--no-deps"),
    "postgres": (STACK_NEWEST, "--no-deps"),
    "redis": (STACK_NEWEST, "--no-deps"),
}
"""Service → the date after which releases are skipped, and further options."""


def main() -> None:
    """Lock. Needs uv on PATH and a package registry. Raises CalledProcessError if the requirements have no solution."""
    match sys.argv[1:]:
        case []:
            lock_project()
        case ["stack"]:
            lock_stack()
        case ["examples"]:
            lock_examples()
        case _:
            sys.exit("usage: python scripts/lock.py [stack | examples]")


def lock_stack() -> None:
    """Lock each environment of the local services."""
    for name, (newest, *options) in STACK_LOCKS.items():
        text = _compile(f"{STACK}/{name}.in", newest, *STACK_OPTIONS, *options)
        (ROOT / STACK / f"{name}.txt").write_text(text, "utf-8")


def lock_examples() -> None:
    """Lock each example with a requirements.in, to versions without hashes: such a file can still be read."""
    for source in sorted(file for folder in EXAMPLES for file in (ROOT / folder).glob("*/requirements.in")):
        text = _compile(str(source), _newest(), "--no-annotate")
        source.with_suffix(".txt").write_text(EXAMPLE_HEADER + text, "utf-8")


def lock_project() -> None:
    """Lock the packages of the server, of developers, and of the build."""
    newest = _newest()
    project = ROOT / "pyproject.toml"
    text = project.read_text("utf-8")
    project.write_text(_constrained(_constrained(text, "constraint", []), "build-constraint", []), "utf-8")
    _lock("requirements.txt", newest)
    pins = _lock("requirements-dev.txt", newest, "--group", "dev", "--constraint", "requirements.txt")
    builders = _pins(_compile("-", newest, given=BUILD_BACKEND))
    project.write_text(_constrained(_constrained(text, "constraint", pins), "build-constraint", builders), "utf-8")


def _newest() -> str:
    return (datetime.now(UTC) - COOLDOWN).strftime("%Y-%m-%dT00:00:00Z")


def _lock(name: str, newest: str, *options: str) -> list[str]:
    """Write the lock file `name`. Returns its pins."""
    text = _compile("pyproject.toml", newest, "--generate-hashes", *options)
    (ROOT / name).write_text(HEADER + text, "utf-8")
    return _pins(text)


def _compile(source: str, newest: str, *options: str, given: str | None = None) -> str:
    """The lock of `source` (or, for "-", of `given`) by uv, without addresses of a registry."""
    command = ["uv", "pip", "compile", source, "--universal", "--python-version", "3.11", "--exclude-newer", newest]
    command += ["--no-header", "--no-emit-index-url", "--no-emit-find-links", "--no-config", "--quiet", *options]
    return subprocess.run(command, cwd=ROOT, check=True, input=given, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def _pins(text: str) -> list[str]:
    """The `name==version ; marker` of each package in a requirements file."""
    return [line.removesuffix("\\").strip() for line in text.splitlines() if line[:1].isalnum()]


def _constrained(text: str, kind: str, pins: list[str]) -> str:
    """pyproject.toml's text with these pins as its `<kind>-dependencies`."""
    lines = "".join(f'    "{pin}",\n' for pin in pins)
    block = rf"^{kind}-dependencies = \[\n.*?^\]\n"
    new = f"{kind}-dependencies = [\n{lines}]\n"
    return re.sub(block, lambda _: new, text, count=1, flags=re.DOTALL | re.MULTILINE)


if __name__ == "__main__":
    main()
