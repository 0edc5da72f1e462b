"""The patches of Letta's process: applied when its app is loaded, but not to a version or code they do not know."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from letta_patches import known
from letta_patches.known import UnknownCodeError, digest, require

from server.stack.letta import patches_folder

APP = """
class App:
    def __init__(self): self.routes = {}
    def add_api_route(self, path, endpoint, methods, include_in_schema): self.routes[path] = endpoint
app = App()
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


def start(folder: Path, version: str, program: str = ASK, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a program in a process with the patches and a Letta of this version, whose code differs from the real one."""
    package = folder / "letta"
    files = {"__init__.py": "", "log.py": LOG, "server/__init__.py": "", "server/rest_api/__init__.py": ""}
    for name, text in {**files, "server/rest_api/app.py": APP}.items():
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


def reported(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    [patch] = json.loads(done.stdout)["patches"]
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
