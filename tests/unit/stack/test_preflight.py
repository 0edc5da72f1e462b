"""Checks before the start, each with an error of one sentence."""

import shutil
import socket
from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

from server.cli.main import main
from server.stack import preflight
from server.stack.api_server import ApiServer
from server.stack.errors import StackError
from server.stack.layout import Layout


def test_this_machine_is_supported() -> None:
    preflight.check_platform()


def test_another_platform_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(StackError, match="runs on Linux x86_64, and this is Darwin arm64"):
        preflight.check_platform()


def test_another_c_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    with pytest.raises(StackError, match="glibc"):
        preflight.check_platform()


def test_a_port_in_use_is_an_error_that_names_the_option() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use by another program; choose one with --port"):
            preflight.check_port("127.0.0.1", port)
    preflight.check_port("127.0.0.1", port)


@pytest.mark.parametrize("environment", ["production", "Production"])
def test_the_stack_is_not_for_production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: str) -> None:
    monkeypatch.setattr("platform.system", lambda: "Nowhere")  # a failed check cannot install anything
    folder = tmp_path / "data"
    done = CliRunner().invoke(main, ["up", "--data-dir", str(folder)], env={"ENVIRONMENT": environment})
    assert done.exit_code == 1
    assert done.output.startswith("chat: `chat up` is for development, and ENVIRONMENT is production")
    assert done.output.count("\n") == 1
    assert not folder.exists()


async def test_the_port_is_checked_again_before_the_server_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        layout = Layout.open(tmp_path / "data", other.getsockname()[1], {})
        with pytest.raises(StackError, match="in use by another program"):
            await ApiServer(layout).prepare()
    await ApiServer(layout).prepare()


def test_an_installation_needs_more_disk_than_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ("total", "used", "free"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, preflight.GIB))
    preflight.check_disk(tmp_path, installed=True)
    with pytest.raises(StackError, match=r"1\.0 GB of free disk and 4\.0 GB are needed"):
        preflight.check_disk(tmp_path, installed=False)
