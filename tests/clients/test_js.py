"""The JavaScript client: its build, its own tests, the conformance suite, and conversations with this server."""

import json
import re
import tarfile
from collections.abc import Sequence

import pytest

from tests.clients.js_package import SOURCE, WITH_SOCKETS, JsPackage
from tests.clients.suite import check_passed, conformance
from tests.unit.api.world import World

MESSAGES = 20
OVER_THE_EVENT_STREAM = (
    *("falls_back_to_the_event_stream", "event_stream_is_renewed", "refusals_over_rest", "pages_of_history"),
    *("turn_of_another_device", "server_restarts", "expired_token", "refused_for_good", "too_large_for_a_frame"),
)
"""The scenarios in which the client sends nothing over a socket."""


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((SOURCE / "package-lock.json").read_text("utf-8"))
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


async def test_its_types_are_those_of_the_documents(js: JsPackage) -> None:
    await js.run(str(js.node), "scripts/types.mjs", "--check")


@pytest.mark.parametrize("runtime", ["node", "oldest_node"])
async def test_its_own_tests_pass(js: JsPackage, runtime: str) -> None:
    tests = sorted(str(file) for file in (js.folder / "build" / "test").glob("*.test.js"))
    output = await js.run(str(getattr(js, runtime)), "--test", *tests)
    assert re.search(r"^(#|ℹ) pass [1-9]", output, re.MULTILINE), output


async def test_it_is_built_within_its_size_with_the_reviewed_surface_and_packed_without_sources(js: JsPackage) -> None:
    assert "core:" in await js.run(str(js.node), "scripts/build.mjs")
    await js.run(str(js.node), "scripts/api.mjs", "--check")
    packed = await js.packed()
    await js.run(str(js.node), "node_modules/publint/src/cli.js", "--strict", "--pack", "false", str(js.folder))
    await js.run(str(js.node), "node_modules/@arethetypeswrong/cli/dist/index.js", str(packed), "--profile", "esm-only")
    with tarfile.open(packed) as package:
        names = {name.removeprefix("package/") for name in package.getnames()}
    manifest = json.loads((SOURCE / "package.json").read_text("utf-8"))
    entries = [path for entry in manifest["exports"].values() if isinstance(entry, dict) for path in entry.values()]
    assert {path.removeprefix("./") for path in (*entries, "./dist/browser/chat.js", "./dist/browser/auth.js")} <= names
    assert {"LICENSE", "README.md", "package.json"} <= names
    assert not [name for name in names if name.startswith(("src/", "test/"))]


async def test_it_conforms_to_the_protocol_with_frames_that_this_server_may_send(js: JsPackage) -> None:
    async with conformance() as url:
        await conforms(js, url)


async def test_it_conforms_in_the_oldest_runtime_with_sockets_and_without(js: JsPackage) -> None:
    async with conformance() as url:
        await conforms(js, url, str(js.oldest_node), WITH_SOCKETS)
        await conforms(js, url, str(js.oldest_node), scenarios=OVER_THE_EVENT_STREAM)


async def conforms(js: JsPackage, url: str, *runtime: str, scenarios: Sequence[str] = ()) -> None:
    command = (*(runtime or (str(js.node),)), "build/test/conformance.js", *scenarios)
    output = await js.run(*command, env={"CONFORMANCE_URL": url})
    check_passed(output, len(scenarios) or None)


async def test_two_devices_show_what_the_history_has_however_often_their_connections_are_cut(js: JsPackage) -> None:
    async with World().serving() as world:
        user = await world.user()
        address = str(world.http.make_url("/")).rstrip("/")
        output = await js.script("talk", str(MESSAGES), env={"CHAT_URL": address, "CHAT_TOKEN": str(user.token)})
    assert output.count("equal") == 2, output
