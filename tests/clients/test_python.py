"""The Python client: its build, the conformance suite, the README's examples, and conversations with this server."""

import asyncio
import platform
import re
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ai_chat_client import Auth, Chat, ChatError, ChatState
from ai_chat_client.talk.storage import FileStorage
from tests.clients.processes import run
from tests.clients.python_package import SOURCE, PythonPackage
from tests.clients.suite import check_passed, conformance
from tests.fakes.agent import Reply, Tool, Turnstile
from tests.unit.api.world import PASSWORD, World
from tests.unit.api.world import Client as WorldClient

MESSAGES = 20
README = (SOURCE / "README.md").read_text("utf-8")


def address(world: World) -> str:
    return str(world.http.make_url("/")).rstrip("/")


async def shown(chat: Chat, *messages: tuple[str, str]) -> ChatState:
    """The state once these texts and statuses are shown."""
    async with asyncio.timeout(60):
        async for state in chat.states():
            if [(message.text, message.status) for message in state.messages] == list(messages):
                return state
    raise AssertionError(chat.state)


def snippet(kind: str) -> str:
    """The README's code block of this kind."""
    found = re.search(rf"^```python {kind}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert found, kind
    return found[1]


# -- the package ----------------------------------------------------------------------------------------------------


async def test_its_types_are_those_of_the_documents(python: PythonPackage) -> None:
    await python.run("scripts/wire.py", "--check")


async def test_its_surface_is_the_reviewed_one(python: PythonPackage) -> None:
    await python.run("scripts/api.py", "--check")


def test_it_knows_nothing_of_the_server() -> None:
    code = "import sys, ai_chat_client; print(sorted(name for name in sys.modules if name.split('.')[0] == 'server'))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


async def test_its_wheel_is_typed_and_works_in_a_fresh_environment(tmp_path: Path) -> None:
    await run("uv", "build", "--quiet", "--out-dir", str(tmp_path / "dist"), cwd=SOURCE)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert len(list((tmp_path / "dist").glob("*.tar.gz"))) == 1
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"ai_chat_client/py.typed", "ai_chat_client/chat.py"} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"ai_chat_client"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert (SOURCE / "LICENSE").read_bytes() == (SOURCE.parents[1] / "LICENSE").read_bytes()
    await run("uv", "venv", "--quiet", "--python", sys.executable, "venv", cwd=tmp_path)
    interpreter = str(tmp_path / "venv" / "bin" / "python")
    await run("uv", "pip", "install", "--quiet", "--python", interpreter, str(wheel), cwd=tmp_path)
    (tmp_path / "bot.py").write_text(snippet("bot"), "utf-8")
    async with World().serving() as world:
        user = await world.user()
        env = {"CHAT_URL": address(world), "CHAT_TOKEN": str(user.token), "PYTHONPATH": ""}
        output = await run(interpreter, "bot.py", cwd=tmp_path, env=env)
    assert output.startswith("You said: What do you know about me? 0.002"), output


# -- the protocol ---------------------------------------------------------------------------------------------------


async def test_it_conforms_to_the_protocol_with_frames_that_this_server_may_send(python: PythonPackage) -> None:
    async with conformance() as url:
        check_passed(await python.script("conformance", env={"CONFORMANCE_URL": url}))


async def test_two_devices_show_what_the_history_has_however_often_their_connections_are_cut(
    python: PythonPackage,
) -> None:
    async with World().serving() as world:
        user = await world.user()
        env = {"CHAT_URL": address(world), "CHAT_TOKEN": str(user.token)}
        output = await python.script("talk", str(MESSAGES), env=env)
    assert output.count("equal") == 2, output


@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_conversation_goes_on_with_a_fresh_token_when_the_old_one_has_expired(transport: Any) -> None:
    asked: asyncio.Queue[bool] = asyncio.Queue()
    async with World().serving() as world:
        user = await world.user()

        async def get_token(expired: bool) -> str:
            asked.put_nowait(expired)
            return world.token(user.user_id, timedelta(hours=1) if expired else timedelta(seconds=2))

        async with Chat(address(world), get_token, transport=transport) as chat:
            await chat.ended(await chat.send("Hello"))
            async with asyncio.timeout(60):
                while not await asked.get():
                    pass
            await chat.ended(await chat.send("Still there?"))
            await shown(
                chat,
                *(("Hello", "sent"), ("You said: Hello", "complete")),
                *(("Still there?", "sent"), ("You said: Still there?", "complete")),
            )


async def test_reasoning_and_tools_are_shown_as_they_come_to_devices_that_join_and_after_a_restart() -> None:
    async with World().serving() as world:
        url, user = address(world), await world.user()
        world.gateway.pace = pace = Turnstile()
        world.gateway.plan(Reply(("Noted", "."), reasoning=("A preference.",), tools=(Tool("memory_insert"),)))
        pace.allow(4)  # the reasoning, the call, its return, a word
        async with Chat(url, str(user.token)) as first, Chat(url, str(user.token)) as joined:
            turn_id = await first.send("I like tea")
            for chat in (first, joined):
                state = await shown(chat, ("I like tea", "sent"), ("Noted", "streaming"))
                assert parts_of(state) == ("A preference.", [("memory_insert", "success")])
            async with Chat(url, str(user.token)) as late:
                state = await shown(late, ("I like tea", "sent"), ("Noted", "streaming"))
                assert parts_of(state) == ("A preference.", [("memory_insert", "success")])
            pace.open()
            assert (await first.ended(turn_id)).reply == first.state.messages[-1]
        async with Chat(url, str(user.token)) as later:
            state = await shown(later, ("I like tea", "sent"), ("Noted.", "complete"))
        assert parts_of(state) == ("A preference.", [("memory_insert", "success")])


def parts_of(state: ChatState) -> tuple[str, list[tuple[str, str]]]:
    """The reasoning and the tool calls of the newest reply."""
    reply = state.messages[-1]
    return reply.reasoning, [(tool.name, tool.status) for tool in reply.tools]


async def test_stop_retry_and_interrupt() -> None:
    async with World().serving() as world:
        user = await world.user()
        async with Chat(address(world), str(user.token)) as chat:
            world.gateway.plan(Reply(("Once upon",), stuck=True), Reply.of("A story."), Reply(("Never ",), stuck=True))
            turn_id = await chat.send("Tell me a story")
            await shown(chat, ("Tell me a story", "sent"), ("Once upon", "streaming"))
            await chat.cancel()
            state = await shown(chat, ("Tell me a story", "sent"), ("Once upon", "partial"))
            assert state.messages[-1].can_retry
            assert await chat.retry(state.messages[-1]) == turn_id
            turn = await chat.ended(turn_id)
            assert turn.reply is not None
            assert (turn.attempt, turn.reply.text) == (2, "A story.")
            chat.send("Another")
            await shown(
                chat,
                *(("Tell me a story", "sent"), ("A story.", "complete"), ("Another", "sent"), ("Never ", "streaming")),
            )
            turn = await chat.ended(await chat.interrupt("Stop"))
            assert [message.status for message in chat.state.messages[-4:]] == ["sent", "partial", "sent", "complete"]


async def test_a_refusal_is_an_error_with_its_code_and_the_message_can_be_discarded() -> None:
    async with World().serving() as world:
        user = await world.user()
        async with Chat(address(world), str(user.token)) as chat:
            with pytest.raises(ChatError) as refusal:
                await chat.send(" ")
            assert (refusal.value.code, refusal.value.retryable) == ("invalid_request", False)
            state = await shown(chat, (" ", "refused"))
            assert state.messages[0].can_retry
            chat.discard(state.messages[0])
            await shown(chat)


async def test_older_pages_are_loaded_and_what_is_deleted_is_not_shown() -> None:
    async with World().serving() as world:
        user = await world.user()
        for number in range(5):
            await user.say(f"question {number}")
        async with Chat(address(world), str(user.token), page_size=4) as chat:
            await chat.ended(await chat.send("question 5"))
            while await chat.load_older():
                pass
            texts = [message.text for message in chat.state.messages]
            assert texts == [text for n in range(6) for text in (f"question {n}", f"You said: question {n}")]
            assert (await user.delete("/api/v1/chat/history")).status == 204
            await shown(chat)


async def test_a_message_that_could_not_be_sent_is_sent_by_the_next_run() -> None:
    storage: dict[str, str] = {}
    async with World().serving() as world:
        user = await world.user()
        async with Chat(address(world), str(user.token), storage=storage) as chat:
            await chat.ended(await chat.send("Hello"))
            for task in tuple(chat._tasks):  # the network is gone
                task.cancel()
            waiting = chat.send("Later")
        with pytest.raises(ChatError, match="closed"):
            await waiting
        assert "Later" in str(storage)
        async with Chat(address(world), str(user.token), storage=storage) as chat:
            await shown(
                chat,
                *(("Hello", "sent"), ("You said: Hello", "complete")),
                *(("Later", "sent"), ("You said: Later", "complete")),
            )
        assert storage == {}


async def test_two_runs_with_one_storage_send_each_message_once() -> None:
    """As two terminals of one user; the second one begins while the first still waits to send its message."""
    storage: dict[str, str] = {}
    async with World().serving() as world:
        user = await world.user()

        async def offline(chat: Chat, text: str) -> None:
            await chat.open()
            async for state in chat.states():
                if state.connection == "online":
                    break
            await shown(chat, *said)
            for task in tuple(chat._tasks):  # the network is gone
                task.cancel()
            await asyncio.gather(*chat._tasks, return_exceptions=True)
            chat.send(text)

        said: list[tuple[str, str]] = []
        first, second = (Chat(address(world), str(user.token), storage=storage) for _ in range(2))
        await offline(first, "One")
        said += [("One", "sent"), ("You said: One", "complete")]
        await offline(second, "Two")  # it sends the first one's message, too
        first.reconnect()
        await shown(first, *said)
        await first.close()
        assert "Two" in str(storage)
        await second.close()
        said += [("Two", "sent"), ("You said: Two", "complete")]
        async with Chat(address(world), str(user.token), storage=storage) as third:
            await shown(third, *said)
        assert storage == {}
        history = (await user.get("/api/v1/chat/history")).json["data"]
        assert [message["content"] for message in reversed(history)] == [text for text, _ in said]


async def test_a_closed_chat_refuses_and_ends_all_iterations() -> None:
    async with World().serving() as world:
        user = await world.user()
        async with Chat(address(world), str(user.token)) as chat:
            events = chat.events()
            await chat.ended(await chat.send("Hello"))
        assert [event["type"] async for event in events][-1] == "turn.completed"
        assert [state.connection async for state in chat.states()] == ["closed"]
        with pytest.raises(ChatError, match="closed"):
            chat.send("Hello again")


async def test_what_the_server_says_of_a_wrong_key_reaches_whoever_asked() -> None:
    async with World().serving() as world, Chat(address(world), "chat_000000000000_wrong") as chat:
        with pytest.raises(ChatError) as refusal:
            await chat.request("user/usage")
        assert (refusal.value.code, bool(refusal.value.request_id)) == ("unauthorized", True)
        async for state in chat.states():
            if state.connection == "closed":
                assert state.error is not None
                assert state.error.code == "unauthorized"
                break


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    for kind in (lambda url: Chat(url, "token"), Auth):
        with pytest.raises(ValueError, match="https://"):
            kind("chat.example.com")


async def test_an_account_that_is_closed_closes_the_chat_and_whoever_waits_learns_why() -> None:
    async with World().serving() as world:
        user = await world.user()
        async with Chat(address(world), str(user.token)) as chat:
            world.gateway.plan(Reply(("Once ",), stuck=True))
            turn_id = await chat.send("Hello")
            assert (await user.delete("/api/v1/user")).status in (202, 204)
            waiting = asyncio.create_task(chat.ended(turn_id))
            async for state in chat.states():
                if state.connection == "closed":
                    assert state.error is not None
                    assert state.error.code in ("account_blocked", "unauthorized")
                    break
            await asyncio.wait({waiting})
            error = waiting.exception()
            assert error is None or error is state.error


# -- signing in -----------------------------------------------------------------------------------------------------


async def test_whoever_registers_stays_signed_in_and_can_sign_out() -> None:
    storage: dict[str, str] = {}
    async with World().serving() as world:
        auth = Auth(address(world), storage)
        user = await auth.register("ada@example.com", PASSWORD, "Ada")
        assert user is not None
        assert user["name"] == "Ada"
        token = await Auth(address(world), storage).get_token()
        assert token == await auth.get_token()
        first, second = await asyncio.gather(auth.get_token(True), auth.get_token(True))
        assert first == second
        assert first != token
        await auth.sign_out()
        assert (auth.user, await auth.get_token(), storage) == (None, None, {})
        with pytest.raises(ChatError) as refusal:
            await auth.sign_in("ada@example.com", "wrong password")
        assert refusal.value.code == "unauthorized"
        assert (await auth.sign_in("ada@example.com", PASSWORD))["email"] == "ada@example.com"


async def test_a_sign_in_is_named_by_the_client_or_by_its_app() -> None:
    async with World().serving() as world:
        own, bot = Auth(address(world)), Auth(address(world), app="my-bot")
        await own.register("ada@example.com", PASSWORD)
        await bot.sign_in("ada@example.com", PASSWORD)
        token = await bot.get_token()
        assert token is not None
        listed = (await WorldClient(world.http, token).get("/api/v1/auth/sessions")).json["data"]
        names = [one["user_agent"] for one in listed]
        system = platform.system().replace("Darwin", "macOS")
        assert names == [f"my-bot ({system})", f"ai-chat-client-python ({system})"]


async def test_two_terminals_that_renew_their_tokens_at_once_stay_signed_in(tmp_path: Path) -> None:
    async with World().serving() as world:
        storages = [FileStorage(tmp_path) for _ in range(2)]
        auths = [Auth(address(world), storage, lock=storage.lock) for storage in storages]
        await auths[0].register("ada@example.com", PASSWORD)
        for _ in range(3):
            before = await auths[0].get_token()
            tokens = await asyncio.gather(*(auth.get_token(expired=True) for auth in auths))
            assert tokens[0] == tokens[1] != before
        assert auths[1].user is not None


# -- the README -----------------------------------------------------------------------------------------------------


async def test_the_readmes_examples_render_stream_and_sign_in() -> None:
    async with World().serving() as world:
        url, user = address(world), await world.user()
        names: dict[str, Any] = {}
        for kind in ("auth", "states", "events"):
            exec(compile(snippet(kind), kind, "exec"), names)
        async with Chat(url, str(user.token)) as chat:
            printed: list[str] = []
            names["print"] = lambda text, **_: printed.append(text)
            await names["stream"](chat, "Hello")
            assert "".join(printed) == "You said: Hello"
            await names["render"](chat)
            assert "assistant (complete): You said: Hello" in printed
        assert await names["converse"](url, "grace@example.com", PASSWORD) == "You said: Hello"
        assert await names["converse"](url, "grace@example.com", PASSWORD) == "You said: Hello"
