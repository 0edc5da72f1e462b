"""The data directory: stored secrets and ports, permissions, and refused folders."""

import json
import socket
from pathlib import Path

import pytest

from server.stack.errors import StackError
from server.stack.layout import LOOPBACK, PRIVATE_PORTS, Layout, write_private


def test_secrets_are_random_private_and_stable(layout: Layout) -> None:
    first = layout.secret("database")
    again = Layout.open(layout.root, 8080)
    assert again.secret("database") == first
    assert again.secret("other") != first
    assert (layout.root / "secrets.json").stat().st_mode & 0o777 == 0o600


def test_a_free_port_is_reused(layout: Layout) -> None:
    port = layout.port("letta")
    assert port in PRIVATE_PORTS
    assert Layout.open(layout.root, 8080).port("letta") == port


def test_a_port_in_use_is_replaced(layout: Layout) -> None:
    port = layout.port("letta")
    with socket.socket() as other:
        other.bind((LOOPBACK, port))
        other.listen()
        again = Layout.open(layout.root, 8080)
        assert again.port("letta") != port
    assert Layout.open(layout.root, 8080).port("letta") == again.port("letta")


def test_a_link_to_the_directory_is_resolved(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real").mkdir()
    assert Layout.open(tmp_path / "link", 8080).root == tmp_path / "real"


def test_services_never_share_a_port(layout: Layout) -> None:
    (layout.root / "ports.json").write_text(json.dumps({"one": "21555", "two": "21555"}))
    assert layout.port("one") != layout.port("two")


def test_the_server_uses_the_configured_port(layout: Layout) -> None:
    assert layout.port("server") == 8080


def test_services_get_no_keys_and_no_python_settings() -> None:
    environ = {"PATH": "/bin", "OPENAI_API_KEY": "sk-secret", "PYTHONDONTWRITEBYTECODE": "1", "PIP_INDEX_URL": "x"}
    environment = Layout(Path("/nowhere"), 8080, environ).base_environment()
    assert environment == {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def test_a_proxy_is_inherited_but_not_used_between_services() -> None:
    environment = Layout(Path("/nowhere"), 8080, {"https_proxy": "http://proxy:3128"}).base_environment()
    assert environment["https_proxy"] == "http://proxy:3128"
    assert "127.0.0.1" in environment["no_proxy"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(StackError, match="holds other things"):
        Layout.open(tmp_path, 8080)


def test_a_file_instead_of_a_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot be used as the data directory"):
        Layout.open(tmp_path / "file", 8080)


def test_wipe_deletes_only_data_directories(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(StackError, match="nothing was deleted"):
        Layout(tmp_path, 8080).wipe()
    layout.wipe()
    assert not layout.root.exists()


def test_damaged_secrets_are_not_replaced_silently(layout: Layout) -> None:
    (layout.root / "secrets.json").write_text("{")
    with pytest.raises(StackError, match="damaged"):
        layout.secret("database")


def test_a_private_file_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "stack.env"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]
