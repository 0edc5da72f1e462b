"""The patches of Letta's process: applied when its app is loaded, but not to a version or code they do not know."""

import inspect
import json
import os
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from letta_patches import PATCHES, known, tls_context
from letta_patches.connection_tests import FRESH_SECONDS, FreshConnections
from letta_patches.known import UnknownCodeError, digest, require
from letta_patches.prepared_statements import is_transaction_pooler
from letta_patches.signatures import with_cached
from letta_patches.tool_schemas import generated_once

from server.stack.letta import patches_folder

APP = """
class App:
    def __init__(self): self.routes = {}
    def add_api_route(self, path, endpoint, methods, include_in_schema): self.routes[path] = endpoint
app = App()
"""
PRINTING_APP = f"""
import os
print(f"Using secure mode with password: {{os.environ['LETTA_SERVER_PASSWORD']}}")
{APP}
"""
LOG = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
get_logger = logging.getLogger
"""
ASK = """
import asyncio, json
from letta.server.rest_api.app import app
print(json.dumps(asyncio.run(app.routes["/v1/patches"]())))
"""


def start(
    folder: Path, version: str, program: str = ASK, app: str = APP, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process with the patches and a Letta of this version, whose code differs from the real one."""
    package = folder / "letta"
    files = {"__init__.py": "", "log.py": LOG, "server/__init__.py": "", "server/rest_api/__init__.py": ""}
    for name, text in {**files, "server/rest_api/app.py": app}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    metadata = folder / f"letta-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: letta\nVersion: {version}\n")
    path = os.pathsep.join([str(patches_folder()), str(folder)])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )


def reported(done: "subprocess.CompletedProcess[str]", name: str = "stop") -> dict[str, Any]:
    [patch] = [patch for patch in json.loads(done.stdout)["patches"] if patch["name"] == name]
    return dict(patch)


def test_a_letta_of_another_version_is_not_patched_and_reports_it(tmp_path: Path) -> None:
    done = start(tmp_path, "0.16.9")
    assert reported(done) == {"name": "stop", "applied": False, "detail": "this is Letta 0.16.9, it knows 0.16.8"}
    assert "WARNING Patch stop is NOT applied: this is Letta 0.16.9" in done.stderr


def test_a_letta_with_other_code_starts_without_the_patch(tmp_path: Path) -> None:
    done = start(tmp_path, "0.16.8")
    assert reported(done)["applied"] is False
    assert "No module named 'letta.adapters'" in reported(done)["detail"]


def test_a_patch_is_turned_off_by_its_switch(tmp_path: Path) -> None:
    done = start(tmp_path, "0.16.8", LETTA_PATCH_STOP="off")
    assert reported(done) == {"name": "stop", "applied": False, "detail": "LETTA_PATCH_STOP turns it off"}


NAMES = [patch.__name__.rpartition(".")[2] for patch in PATCHES]


@pytest.mark.parametrize("name", NAMES)
def test_each_patch_has_a_switch(tmp_path: Path, name: str) -> None:
    switch = f"LETTA_PATCH_{name.upper()}"
    done = start(tmp_path, "0.16.8", **{switch: "off"})
    assert reported(done, name) == {"name": name, "applied": False, "detail": f"{switch} turns it off"}


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql+asyncpg://letta:secret@127.0.0.1:5432/letta", False),
        ("postgresql+asyncpg://postgres.abc:secret@aws-0-eu-west-1.pooler.supabase.com:5432/postgres", False),
        ("postgresql+asyncpg://postgres.abc:secret@aws-0-eu-west-1.pooler.supabase.com:6543/postgres", True),
        ("postgresql+asyncpg://letta:secret@ep-cool-1234-pooler.eu.example.com/letta", True),
        ("postgresql+asyncpg://letta:secret@pgbouncer.railway.internal:5432/letta", True),
        ("postgresql+asyncpg://letta:secret@db/letta?pgbouncer=true", True),
    ],
)
def test_statements_are_not_cached_behind_a_transaction_pooler(uri: str, expected: bool) -> None:
    assert is_transaction_pooler(uri) is expected


def test_one_tls_context_is_shared_unless_the_caller_has_its_own() -> None:
    created: list[tuple[object, object, bool]] = []

    def create(verify: object = True, cert: object = None, trust_env: bool = True) -> ssl.SSLContext:
        created.append((verify, cert, trust_env))
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    shared = tls_context._shared(create)
    assert shared() is shared(verify=True) is not shared(verify=False)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert shared(verify=own) is not shared(verify=own)
    assert shared(cert="mine.pem") is not shared(cert="mine.pem")
    assert len(created) == 6


class Connections:
    """A pool's connections, whose tests are recorded."""

    def __init__(self) -> None:
        self.now, self.tested = 100.0, list[object]()
        self.patched = FreshConnections(self.test, lambda: self.now)

    def test(self, connection: object) -> bool:
        self.tested.append(connection)
        return False


def test_a_connection_is_tested_unless_it_was_in_use_within_the_last_second() -> None:
    one, connections = object(), Connections()
    assert connections.patched.ping(one) is False
    connections.patched.used(one)
    connections.now += FRESH_SECONDS - 0.01
    assert connections.patched.ping(one) is True
    assert connections.tested == [one]
    connections.now += 0.01
    assert connections.patched.ping(one) is False
    assert connections.tested == [one, one]


def test_a_closed_connection_leaves_nothing_to_a_new_one_at_its_address() -> None:
    one, connections = object(), Connections()
    connections.patched.used(one)
    connections.patched.used(None)
    connections.patched.closed(one)
    assert connections.patched.ping(one) is False


def test_the_schema_of_a_tool_is_generated_once_and_a_change_of_it_stays_with_its_caller() -> None:
    generated: list[str] = []

    def generate(module_name: str, function_name: str) -> dict[str, Any]:
        generated.append(f"{module_name}.{function_name}")
        return {"name": function_name, "parameters": {"properties": {}}}

    schema = generated_once(generate)
    schema("base", "memory_insert")["parameters"]["properties"]["heartbeat"] = {}
    assert schema(module_name="base", function_name="memory_insert") == generate("base", "memory_insert")
    assert schema("base", "memory_replace")["name"] == "memory_replace"
    assert generated == ["base.memory_insert", "base.memory_insert", "base.memory_replace"]


def test_signatures_are_cached_in_a_module_of_their_own() -> None:
    ours = with_cached("signature")
    assert ours.signature(start) is ours.signature(start)
    assert ours.signature(start) == inspect.signature(start)
    assert inspect.signature(start) is not inspect.signature(start)
    assert ours.isasyncgen is inspect.isasyncgen


@pytest.mark.parametrize("version", [known.VERSION, "0.17.0"])
def test_the_password_that_letta_prints_when_it_starts_is_hidden(tmp_path: Path, version: str) -> None:
    program = "import letta.server.rest_api.app"
    done = start(tmp_path, version, program, PRINTING_APP, LETTA_SERVER_PASSWORD="hush7me")
    assert done.stdout == "Using secure mode with password: [hidden]\n"
    assert "hush7me" not in done.stderr


def test_a_process_that_does_not_serve_is_not_patched(tmp_path: Path) -> None:
    program = "import sys, letta.log; print(sorted(m for m in sys.modules if m.startswith('letta.')))"
    done = start(tmp_path, "0.16.8", program)
    assert (done.stdout.strip(), done.stderr) == ("['letta.log']", "")


def test_unknown_code_is_refused_with_its_name() -> None:
    require({digest: digest(digest)})
    with pytest.raises(UnknownCodeError, match=r"letta_patches\.known\.require is another"):
        require({digest: digest(digest), require: "0123456789abcdef"})
    with pytest.raises(UnknownCodeError, match="no source"):
        require({len: "0123456789abcdef"})


def test_the_image_contains_the_letta_version_of_the_patches() -> None:
    image = (patches_folder().parent / "Dockerfile").read_text()
    assert f"FROM letta/letta:{known.VERSION}\n" in image
    assert "COPY patches /opt/chat-patches\nENV PYTHONPATH=/opt/chat-patches\n" in image


def test_the_local_stack_installs_the_letta_version_of_the_patches() -> None:
    locked = (Path(sys.modules["server.stack"].__path__[0]) / "requirements" / "letta.txt").read_text()
    assert f"\nletta=={known.VERSION} " in locked
