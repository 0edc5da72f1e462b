"""The chat in a terminal as a process, with this server and in-memory services: sign-in, pipes and exit codes."""

import re
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.protocol.shapes import AgentStatus
from tests.fakes.agent import Reply, Turnstile
from tests.unit.api.test_over_budget import poor_user
from tests.unit.api.world import PASSWORD, Client, World
from tests.unit.clients.talk.terminal_process import TalkProcess, piped, talking

EMAIL = "ada@example.com"
ESCAPES = "Hi \x1b]0;owned\x07\x1b[2J\u202e there"
CTRL_C, CTRL_D = "\x03", "\x04"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World().serving() as running:
        yield running


def address(world: World) -> str:
    return str(world.http.make_url("/")).rstrip("/")


async def answered(state: Path, world: World, given: str, user: Client | None = None) -> tuple[int, str, str]:
    key = {"CHAT_API_KEY": str(user.token)} if user else {}
    return await piped(state, "--url", address(world), given=given, **key)


def modes_below(folder: Path) -> set[tuple[int, int]]:
    """The modes of all files, and of their folders."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {(stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(path.parent.stat().st_mode)) for path in files}


async def register(person: TalkProcess) -> None:
    await person.enter("E-mail:", EMAIL)
    await person.enter("Password:", PASSWORD)
    await person.enter(f"Register {EMAIL}? [y/N]", "y")
    await person.enter("The same password again:", PASSWORD)
    await person.enter("Your name", "Ada")


# -- sign-in --------------------------------------------------------------------------------------------------------


async def test_a_new_address_is_registered_and_stays_signed_in_until_it_is_signed_out(
    world: World, tmp_path: Path
) -> None:
    async with talking(tmp_path, "--url", address(world)) as person:
        await register(person)
        await person.enter("Nothing was said yet.", "Hello")
        await person.shows("You said: Hello", "$0.002")
        person.type(CTRL_D)
        assert await person.ended() == 0
        assert PASSWORD not in person.terminal.raw
    assert modes_below(tmp_path) == {(0o600, 0o700)}
    assert await answered(tmp_path, world, "Again\n") == (0, "You said: Again\n", "")
    assert (await piped(tmp_path, "--url", address(world), "--sign-out"))[:2] == (0, "Signed out.\n")
    assert modes_below(tmp_path) == set()
    code, output, errors = await answered(tmp_path, world, "Again\n")
    assert (code, output) == (4, "")
    assert errors == "chat: You are not signed in here: run `chat talk` in a terminal once.\n"


async def test_an_address_that_must_be_confirmed_takes_the_code_of_its_mail(world: World, tmp_path: Path) -> None:
    world.identity.confirms = True
    async with talking(tmp_path, "--url", address(world)) as person:
        await register(person)
        await person.enter("The code, or nothing", "000000")
        await person.enter("too old", world.identity.mails[0].code)
        await person.shows("Nothing was said yet.", "●")


async def test_an_address_that_was_confirmed_by_its_link_needs_no_code(world: World, tmp_path: Path) -> None:
    world.identity.confirms = True
    async with talking(tmp_path, "--url", address(world)) as person:
        await register(person)
        await person.enter("The code, or nothing", "")
        await person.shows("Confirm your e-mail address first.")
        world.identity.unconfirmed.clear()
        person.type("\r")
        await person.shows("Nothing was said yet.")


async def test_a_wrong_password_is_said_and_registers_nobody(world: World, tmp_path: Path) -> None:
    async with talking(tmp_path, "--url", address(world)) as person:
        await person.enter("E-mail:", EMAIL)
        await person.enter("Password:", "wrong")
        await person.enter("[y/N]", "")
        assert await person.ended() == 4
        await person.shows("chat: Wrong e-mail address or password.")
    assert EMAIL not in world.database.users.values()


async def test_ctrl_c_at_a_question_ends_quietly(world: World, tmp_path: Path) -> None:
    async with talking(tmp_path, "--url", address(world)) as person:
        await person.shows("E-mail:")
        person.type(CTRL_C)
        assert await person.ended() == 130
        assert "Traceback" not in person.terminal.text()


async def test_the_demo_user_needs_no_questions(tmp_path: Path) -> None:
    async with World(environment="development", demo_user="demo@example.com:Demo-user-1").serving() as world:
        async with talking(tmp_path / "one", "--url", address(world), "--demo") as person:
            await person.shows("Nothing was said yet.", "demo@example.com", "The demo model answers")
        async with talking(tmp_path / "two", "--url", address(world)) as person:
            await person.shows("Without an address you are the demo user.")
            await person.enter("E-mail:", "")
            await person.shows("Nothing was said yet.", "demo@example.com")


async def test_a_server_without_a_demo_user_says_so(world: World, tmp_path: Path) -> None:
    code, _, errors = await piped(tmp_path, "--url", address(world), "--demo", "Hello")
    assert (code, errors) == (4, "chat: This server offers no demo user.\n")


async def test_a_session_that_was_ended_elsewhere_asks_again(world: World, tmp_path: Path) -> None:
    async with talking(tmp_path, "--url", address(world)) as person:
        await register(person)
        await person.shows("Nothing was said yet.")
        world.database.sign_ins.clear()
        world.hub.recheck(next(iter(world.database.users)))
        assert await person.ended() == 4
        await person.shows("chat: You were signed out: sign in again.")
    async with talking(tmp_path, "--url", address(world)) as person:
        await person.shows("You are not signed in here.", "E-mail:")


# -- without a terminal ---------------------------------------------------------------------------------------------


async def test_a_pipe_gets_the_text_of_the_reply_alone(world: World, tmp_path: Path) -> None:
    user = await world.user()
    world.gateway.plan(Reply.of("# Title\n\n**bold** and [link](https://example.com)\n"))
    assert await answered(tmp_path, world, "Hello\n", user) == (
        *(0, "# Title\n\n**bold** and [link](https://example.com)\n"),
        "",
    )


async def test_a_pipe_gets_no_control_characters(world: World, tmp_path: Path) -> None:
    user = await world.user()
    world.gateway.plan(Reply.of(ESCAPES))
    assert await answered(tmp_path, world, "Hello\n", user) == (0, "Hi \\x1b]0;owned\\x07\\x1b[2J there\n", "")


async def test_arguments_and_input_are_one_message(world: World, tmp_path: Path) -> None:
    user = await world.user()
    options = ("--url", address(world), "What", "is", "this?")
    code, output, _ = await piped(tmp_path, *options, given="some\ntext\n", CHAT_API_KEY=str(user.token))
    assert (code, output) == (0, "You said: What is this?\n\nsome\ntext\n")


async def test_a_message_in_a_terminal_is_answered_as_it_is_written(world: World, tmp_path: Path) -> None:
    user = await world.user()
    world.gateway.pace = pace = Turnstile()
    world.gateway.plan(Reply(("One ", "two.")))
    pace.allow(1)
    async with talking(tmp_path, "--url", address(world), "Count", CHAT_API_KEY=str(user.token)) as person:
        await person.shows("One")
        pace.open()
        await person.shows("One two.")
        assert await person.ended() == 0


async def test_ctrl_c_stops_the_turn_of_a_message(world: World, tmp_path: Path) -> None:
    user = await world.user()
    world.gateway.plan(Reply(("Once upon ",), stuck=True))
    async with talking(tmp_path, "--url", address(world), "Tell", CHAT_API_KEY=str(user.token)) as person:
        await person.shows("Once upon")
        person.type(CTRL_C)
        assert await person.ended() == 130
    newest = (await user.get("/api/v1/chat/history?limit=1")).json["data"][0]
    assert (newest["content"], newest["status"]) == ("Once upon ", "partial")


async def test_nothing_to_send_is_wrong_usage(world: World, tmp_path: Path) -> None:
    code, output, errors = await answered(tmp_path, world, "  \n")
    assert (code, output) == (2, "")
    assert "There is no message" in errors


async def test_each_failure_has_its_sentence_and_exit_code(world: World, tmp_path: Path) -> None:
    poor, blocked = await poor_user(world), await world.user()
    code, output, errors = await answered(tmp_path, world, "one more", poor)
    assert (code, output) == (6, "")
    assert "Spent $0.002 of $0.002; it resets at " in errors
    world.set_status(blocked.user_id, AgentStatus.BLOCKED)
    code, output, errors = await answered(tmp_path, world, "hello", blocked)
    assert (code, output) == (5, ""), errors
    code, output, errors = await piped(tmp_path, "--url", address(world), "hi", CHAT_API_KEY="chat_000000000000_wrong")
    assert (code, output) == (4, "")
    code, output, errors = await piped(tmp_path, "--url", "http://127.0.0.1:9", "hi", CHAT_API_KEY="x")
    assert (code, output, errors) == (3, "", "chat: The server cannot be reached. (http://127.0.0.1:9)\n")
    code, output, errors = await piped(tmp_path, "--url", "127.0.0.1:9", "hi")
    assert code == 2
    assert "Traceback" not in errors


async def test_a_server_that_is_not_there_is_said_before_any_question(tmp_path: Path) -> None:
    async with talking(tmp_path, "--url", "http://127.0.0.1:9") as person:
        assert await person.ended() == 3
        await person.shows("The server cannot be reached.")
        assert "E-mail" not in person.terminal.text()


async def test_no_color_is_respected(world: World, tmp_path: Path) -> None:
    user = await world.user()
    world.gateway.plan(Reply.of("```python\nprint('x')\n```"))
    options = ("--url", address(world))
    async with talking(tmp_path, *options, CHAT_API_KEY=str(user.token), NO_COLOR="1") as person:
        await person.enter("Nothing was said yet.", "Hello")
        await person.shows("print('x')", "tokens")
        styles = {int(one) for found in re.findall(r"\x1b\[([\d;]+)m", person.terminal.raw) for one in found.split(";")}
    assert styles
    assert max(styles) < 30  # no colour; bold and dim stay
