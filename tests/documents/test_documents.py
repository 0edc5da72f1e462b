"""The contract as its users' tools read it: linters and a parser find nothing, and generated clients talk."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.clients.js_package import JsPackage, installed
from tests.unit.api.world import World

SOURCE = Path(__file__).parent
OPENAPI = "./docs/openapi.json"
ASYNCAPI = "docs/asyncapi.json"
QUIET = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
async def tools(tmp_path_factory: pytest.TempPathFactory) -> JsPackage:
    """The tools, in a folder with the documents under `docs`."""
    packages = await installed("documents", SOURCE)
    folder = tmp_path_factory.mktemp("documents")
    shutil.copytree(SOURCE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copytree(SOURCE.parents[1] / "docs", folder / "docs")
    (folder / "node_modules").symlink_to(packages.folder / "node_modules")
    return JsPackage(folder, packages.node.program, packages.node.program, packages.node.npm)


async def binary(tools: JsPackage, name: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    return await tools.run(str(tools.node), f"node_modules/.bin/{name}", *arguments, env=env)


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text("utf-8"))
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


async def test_redocly_finds_nothing(tools: JsPackage) -> None:
    output = await binary(tools, "redocly", "lint", "--config=redocly.yaml", "--format=json", OPENAPI, env=QUIET)
    report = json.loads(output[output.index("{\n") : output.rindex("}") + 1])
    assert report["problems"] == []


async def test_spectral_finds_nothing(tools: JsPackage) -> None:
    options = ("--ruleset=spectral.yaml", "--fail-severity=hint")
    await binary(tools, "spectral", "lint", *options, OPENAPI, ASYNCAPI)


async def test_the_asyncapi_parser_finds_nothing(tools: JsPackage) -> None:
    assert "23 messages" in await tools.run(str(tools.node), "parse.mjs", ASYNCAPI)


async def test_generated_clients_register_talk_and_page_through_the_history(tools: JsPackage) -> None:
    await binary(tools, "openapi-typescript", OPENAPI, "-o", "generated/fetch.ts", "--default-non-nullable=false")
    plugins = ("@hey-api/client-fetch", "@hey-api/sdk", "@hey-api/typescript")
    await binary(tools, "openapi-ts", "-i", OPENAPI, "-o", "generated/hey", "-p", *plugins)
    await binary(tools, "tsc")
    async with World().serving() as world:
        url = str(world.http.make_url("/")).rstrip("/")
        output = await tools.run(str(tools.node), "build/talk.js", env={"CHAT_URL": url})
    reply = "You said: Hello"
    assert json.loads(output.splitlines()[-1]) == [[reply, reply, "Hello", "unauthorized"]] * 2


PYTHON_TALK = """
import sys
from generated import AuthenticatedClient, Client
from generated.api.auth import auth_register
from generated.api.chat import chat_history, chat_message
from generated.models import History, Problem, Register, SendMessage, SignedIn, Turn
from generated.types import UNSET, Unset

url = sys.argv[1]
visitor = Client(base_url=url)
body = Register(email="python@example.com", password="correct horse battery", name="Ada")
session = auth_register.sync(client=visitor, body=body)
assert isinstance(session, SignedIn)
client = AuthenticatedClient(base_url=url, token=session.access_token)
turn = chat_message.sync(client=client, body=SendMessage(content="Hello", stream=False))
assert isinstance(turn, Turn) and turn.message is not None
print(turn.message.content)
before: str | Unset | None = UNSET
while before is not None:
    page = chat_history.sync(client=client, limit=1, before=before)
    assert isinstance(page, History)
    for message in page.data:
        print(message.content)
    before = page.next_cursor
"""


async def test_a_generated_python_client_registers_talks_and_pages_through_the_history(tools: JsPackage) -> None:
    generate = ("generate", "--path", OPENAPI, "--output-path", "python/generated", "--meta", "none", "--overwrite")
    python = tools.folder / "python"
    python.mkdir()
    output = await tools.run(program("openapi-python-client"), *generate)
    assert "unsupported" not in output.lower(), output
    (python / "talk.py").write_text(PYTHON_TALK, "utf-8")
    await tools.run(
        sys.executable,
        "-m",
        "mypy",
        "--python-version=3.11",
        "--config-file=",
        "--follow-imports=silent",
        "python/talk.py",
    )
    async with World().serving() as world:
        output = await tools.run(sys.executable, "python/talk.py", str(world.http.make_url("/")).rstrip("/"))
    assert output.splitlines() == ["You said: Hello", "You said: Hello", "Hello"]


async def test_the_openapi_validator_finds_nothing(tools: JsPackage) -> None:
    await tools.run(program("openapi-spec-validator"), OPENAPI)


def program(name: str) -> str:
    """A command of this environment."""
    return str(Path(sys.executable).with_name(name))
