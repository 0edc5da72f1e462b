"""`chat talk`, as a newcomer uses it after `chat up`."""

import subprocess
import sys
import uuid
from pathlib import Path

from tests.stack.running_stack import RunningStack

ROOT = Path(__file__).parents[2]
PASSWORD = "Passw0rd-2026"


def talk(url: str, email: str, typed: str, password: str = PASSWORD) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server", "talk", email, "--password", password, "--url", url]
    return subprocess.run(command, input=typed, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120)


def test_a_newcomer_is_registered_and_hears_the_agent(stack: RunningStack) -> None:
    done = talk(stack.url, f"{uuid.uuid4().hex}@example.com", "ECHO good morning\n\nECHO and good night\n")
    assert done.returncode == 0, done.stderr
    assert "Registered" in done.stdout
    assert done.stdout.index("good morning") < done.stdout.index("and good night")


def test_someone_known_is_signed_in(stack: RunningStack) -> None:
    email = f"{uuid.uuid4().hex}@example.com"
    talk(stack.url, email, "")
    assert "Registered" not in talk(stack.url, email, "").stdout


def test_a_weak_password_is_one_sentence(stack: RunningStack) -> None:
    done = talk(stack.url, f"{uuid.uuid4().hex}@example.com", "", password="short")
    assert done.returncode == 1
    assert done.stderr.startswith("chat: ")
    assert done.stderr.count("\n") == 1


def test_no_server_is_one_sentence() -> None:
    done = talk("http://127.0.0.1:9", "someone@example.com", "")
    assert (done.returncode, done.stderr) == (
        1,
        "chat: no server answers at http://127.0.0.1:9; is `chat up` running?\n",
    )
