"""The conversation as a person sees it on the terminal, with keys and scripted states."""

from dataclasses import replace
from typing import Any

import pytest

from ai_chat_client.errors import ChatError
from ai_chat_client.talk.transcript import NOTHING
from tests.unit.clients.talk.scripted_chat import ScriptedChat, talking
from tests.unit.clients.talk.test_clean import HOSTILE

ENTER, CTRL_C, CTRL_D, ALT_ENTER, UP = "\r", "\x03", "\x04", "\x1b\r", "\x1b[A"


async def test_a_message_is_sent_and_its_reply_grows_above_the_input() -> None:
    async with talking() as talk:
        chat, world, terminal = talk.chat, talk.chat.world, talk.terminal
        talk.type("Hello" + ENTER)
        await terminal.shows("❯ Hello  (not sent yet)")
        turn = world.accept("Hello", "mine-1")
        chat.after(world.started(turn), world.delta(turn, "**First** block.\n\nThe sec"))
        await terminal.shows("First block.", "The sec", "Ctrl-C stops the reply")
        chat.after(world.completed(turn, "**First** block.\n\nThe second."))
        await terminal.shows("The second.", "42 tokens · 1 model call · $0.0012")
        assert talk.chat.sent == ["Hello"]
        assert terminal.lines() == [
            "Type a message. /help lists the commands; Ctrl-C stops a reply, Ctrl-D quits.",
            *("", NOTHING, "", "❯ Hello", "", "First block.", "", "The second."),
            *("", "42 tokens · 1 model call · $0.0012", "", "❯"),
            "● ada@example.com at example.com · $0.0012 since you came",
        ]


async def test_no_picture_lacks_the_input_or_what_was_shown_before() -> None:
    """Nothing flickers: each write leaves a whole screen."""
    async with talking() as talk:
        chat, world, terminal = talk.chat, talk.chat.world, talk.terminal
        turn = world.accept("Hello")
        began = len(terminal.pictures)
        words = [f"word{number} " for number in range(20)]
        chat.after(world.started(turn))
        for number, word in enumerate(words):
            chat.after(world.delta(turn, word + ("\n\n" if number % 5 == 4 else "")))
            await terminal.shows(word.strip())
        text = "".join(word + ("\n\n" if number % 5 == 4 else "") for number, word in enumerate(words))
        chat.after(world.completed(turn, text))
        await terminal.shows("42 tokens")
        seen = 0
        for picture in terminal.pictures[began:]:
            shown = "\n".join(picture)
            assert sum(line == "❯" for line in picture) == 1, shown
            assert "●" in shown
            assert shown.count("word") >= seen, shown
            seen = shown.count("word")


async def test_a_long_reply_scrolls_up_whole_and_once() -> None:
    async with talking(rows=10) as talk:
        chat, world = talk.chat, talk.chat.world
        turn = world.accept("List")
        items = [f"{number}. item{number}\n" for number in range(1, 60)]
        chat.after(world.started(turn))
        for item in items:
            chat.after(world.delta(turn, item))
        chat.after(world.completed(turn, "".join(items)))
        await talk.terminal.shows("42 tokens")
        shown = [line.split()[1] for line in talk.terminal.lines() if "item" in line]
        assert shown == [f"item{number}" for number in range(1, 60)]


async def test_a_block_longer_than_the_screen_shows_its_end_and_then_all() -> None:
    async with talking(rows=10) as talk:
        chat, world = talk.chat, talk.chat.world
        turn = world.accept("Code")
        code = "```\n" + "".join(f"line{number}\n" for number in range(40))
        chat.after(world.started(turn), world.delta(turn, code))
        await talk.terminal.until(lambda: "line39" in "\n".join(talk.terminal.screen()), "the last line")
        assert "❯" in talk.terminal.screen()
        chat.after(world.completed(turn, code + "```"))
        await talk.terminal.shows("42 tokens")
        assert [line for line in talk.terminal.lines() if "line" in line] == [f"line{n}" for n in range(40)]


async def test_ctrl_c_stops_the_reply_and_the_second_quits() -> None:
    async with talking() as talk:
        world = talk.chat.world
        turn = world.accept("Hello")
        talk.chat.after(world.started(turn))
        await talk.terminal.shows("Ctrl-C stops the reply")
        talk.type(CTRL_C)
        await talk.asked(("cancel", None))
        await talk.terminal.shows("stopping")
        talk.type(CTRL_C)
        assert "The reply goes on without you" in await talk.end()


async def test_ctrl_c_stops_the_next_reply_as_well() -> None:
    async with talking() as talk:
        for number in (1, 2):
            turn = talk.chat.world.accept(f"Hello {number}")
            talk.chat.after(talk.chat.world.started(turn))
            await talk.terminal.shows(f"❯ Hello {number}", "Ctrl-C stops the reply")
            talk.type(CTRL_C)
            await talk.asked(*[("cancel", None)] * number)
            talk.chat.after(talk.chat.world.cancelled(turn, "Hal"))
            await talk.terminal.until(lambda n=number: talk.terminal.text().count("Stopped.") == n, "the end")  # type: ignore[misc]
        assert not talk.running.done()


async def test_ctrl_c_clears_what_is_typed_and_quits_when_nothing_is() -> None:
    async with talking() as talk:
        talk.type("half a th")
        await talk.terminal.shows("half a th")
        talk.type(CTRL_C)
        await talk.terminal.until(lambda: "half a th" not in talk.terminal.text(), "an empty input")
        assert not talk.running.done()
        talk.type(CTRL_C)
        await talk.end()
        assert talk.chat.sent == []


@pytest.mark.parametrize("way", [CTRL_D, f"/quit{ENTER}", f"/q{ENTER}"])
async def test_ways_to_quit(way: str) -> None:
    async with talking() as talk:
        talk.type(way)
        await talk.end()
        assert talk.terminal.screen()[0].startswith("Type a message.")
        assert "●" not in talk.terminal.text()


async def test_messages_typed_meanwhile_wait_and_say_so() -> None:
    async with talking() as talk:
        chat, world = talk.chat, talk.chat.world
        first = world.accept("one")
        chat.after(world.started(first))
        talk.type("two" + ENTER)
        await talk.sent("two")
        second = world.accept("two", "mine-1")
        chat.after(world.queued(second))
        await talk.terminal.shows("❯ two  (waits)", "1 waiting")
        talk.type("/interrupt now" + ENTER)
        await talk.asked(("interrupt", "now"))


async def test_several_lines_are_one_message() -> None:
    async with talking() as talk:
        talk.type(f"one{ALT_ENTER}two{ENTER}")
        await talk.sent("one\ntwo")
        talk.type(f"\x1b[200~three\nfour\x1b[201~{ENTER}")
        await talk.sent("one\ntwo", "three\nfour")
        await talk.terminal.shows("❯ three four  (not sent yet)")


async def test_arrows_bring_back_what_was_typed() -> None:
    async with talking() as talk:
        talk.type(f"first{ENTER}")
        await talk.sent("first")
        talk.type("x")
        await talk.terminal.until(lambda: "❯ x" in talk.terminal.screen(), "the input")  # and what was typed is known
        talk.type(f"{UP}{ENTER}")
        await talk.sent("first", "first")


async def test_an_unknown_command_stays_in_the_input_and_paths_are_messages() -> None:
    async with talking() as talk:
        talk.type(f"/foo bar{ENTER}")
        await talk.terminal.shows("There is no command /foo")
        await talk.terminal.until(lambda: "❯ /foo bar" in talk.terminal.screen()[-24:], "the input")
        talk.type(f"{CTRL_C}/etc/hosts is empty{ENTER}")
        await talk.sent("/etc/hosts is empty")
        talk.type(f" /help{ENTER}")
        await talk.sent("/etc/hosts is empty", " /help")


async def test_tab_completes_a_command() -> None:
    async with talking() as talk:
        talk.type("/us")
        await talk.terminal.shows("/usage")
        talk.type("\t")
        await talk.terminal.shows("❯ /usage")
        talk.chat.answers["user/usage"] = {"total": {"messages": 1, "tokens": 2, "cost": "0.50"}}
        talk.type(f" {ENTER}")
        await talk.terminal.shows("$0.5")


async def test_a_lost_connection_is_said_in_one_place_and_what_is_typed_waits() -> None:
    async with talking() as talk:
        talk.chat.offline("The server cannot be reached.")
        await talk.terminal.shows("○ offline, trying again: The server cannot be reached.")
        talk.type(f"Later{ENTER}")
        await talk.terminal.shows("❯ Later  (not sent yet)")
        talk.chat.show(replace(talk.chat.state, connection="online", error=None))
        await talk.terminal.shows("● ada@example.com")
        assert "offline" not in talk.terminal.text()
        talk.type(CTRL_D)
        assert "Not sent yet: 1 message." in await talk.end()
        assert "●" not in talk.terminal.text()


async def test_a_connection_that_is_closed_for_good_ends_with_its_reason() -> None:
    async with talking() as talk:
        error = ChatError("account_blocked", "This account is closed.")
        talk.chat.show(replace(talk.chat.state, connection="closed", error=error))
        with pytest.raises(ChatError, match="This account is closed"):
            await talk.end()


async def test_a_used_up_budget_says_how_much_and_when() -> None:
    async with talking() as talk:
        turn = talk.chat.world.accept("Hello")
        talk.chat.after(talk.chat.world.unsent(turn))
        await talk.terminal.shows("✗ The budget is used up. Spent $10 of $10; it resets at ", "/retry tries again.")
        talk.type(f"/retry{ENTER}")
        await talk.asked(("retry", "Hello"))


async def test_what_a_command_cannot_get_is_a_sentence() -> None:
    async with talking() as talk:
        talk.type(f"/memory{ENTER}")
        await talk.terminal.shows("✗ The agents cannot be reached.")
        talk.type(f"/retry{ENTER}")
        await talk.terminal.shows("There is nothing to retry.")
        talk.type(f"/stop{ENTER}")
        await talk.terminal.shows("Nothing runs.")


ANSWERS: dict[str, Any] = {
    "agent/memory": {
        "blocks": [{"label": HOSTILE, "value": HOSTILE, "limit": 100}],
        "archival": {"data": [{"text": HOSTILE, "created_at": HOSTILE}], "has_more": True},
        "context": {"window": 100, "used": 50},
    },
    "user/usage": {
        "total": {"messages": 1, "tokens": 2, "cost": HOSTILE},
        "models": [{"model": HOSTILE, "tokens": 1, "model_calls": 1, "cost": "1"}],
        "budget": {"limit": "5", "spent": "1", "resets_at": HOSTILE},
    },
    "auth/sessions": {
        "data": [{"id": "1", "current": False, "created_at": HOSTILE, "user_agent": HOSTILE, "address": HOSTILE}],
        "connections": [{"kind": HOSTILE, "session_id": "1"}],
    },
    "chat/history": {
        "data": [
            {"role": "assistant", "content": HOSTILE, "created_at": HOSTILE},
            {"role": "user", "content": HOSTILE, "created_at": HOSTILE},
        ],
        "has_more": False,
        "next_cursor": None,
    },
}


async def test_a_search_shows_each_hit_in_its_sentence() -> None:
    chat, long = ScriptedChat(), "x" * 300
    rows = [{"role": "user", "content": f"{long} Green Tea {long}", "created_at": "2026-11-29T12:00:00Z"}]
    chat.answers["chat/history"] = {"data": rows, "has_more": False, "next_cursor": None}
    async with talking(chat, columns=250) as talk:
        talk.type(f"/search green te{ENTER}")
        await talk.asked(("chat/history", {"query": "green te", "limit": 10}))
        await talk.terminal.shows("2026-11-29 12:00  ❯ …x", "x Green Tea x", "x…")
        chat.answers["chat/history"] = {"data": [], "has_more": False, "next_cursor": None}
        talk.type(f"/search mate{ENTER}")
        await talk.terminal.shows("No message has “mate”.")
        talk.type(f"/search{ENTER}")
        await talk.terminal.shows("Type /search and words")


async def test_history_goes_back_page_by_page() -> None:
    chat = ScriptedChat()
    row = {"role": "user", "content": "new", "created_at": "2026-11-29T12:00:00Z"}
    chat.answers["chat/history"] = {"data": [row], "has_more": True, "next_cursor": "c1"}
    async with talking(chat) as talk:
        talk.type(f"/history{ENTER}")
        await talk.terminal.shows("2026-11-29 12:00", "❯ new", "/history again shows older ones.")
        chat.answers["chat/history"] = {"data": [row | {"content": "old"}], "has_more": False, "next_cursor": None}
        talk.type(f"/history{ENTER}")
        await talk.terminal.shows("❯ old", "This is the beginning of the conversation.")
        assert chat.asked == [("chat/history", {"limit": 10}), ("chat/history", {"limit": 10, "before": "c1"})]


async def test_nothing_from_elsewhere_commands_the_terminal() -> None:
    """Messages, reasoning, tools, errors and reports with escape sequences: the only ones written are our own."""
    chat = ScriptedChat(answers=ANSWERS)
    entities = "&#27;[2J &#x9b;2J &#x202e;x [a](http://b&#27;[2J) ![c&#7;](d) `\x1b[2J` \n\n```\x1b[2J\n\x1b[2J\n```"
    async with talking(chat) as talk:
        world = chat.world
        turn = world.accept(HOSTILE)
        chat.after(world.started(turn), world.reasoning(turn, HOSTILE))
        chat.after(world.tool_called(turn, "1", HOSTILE, HOSTILE), world.tool_returned(turn, "1", HOSTILE))
        chat.after(world.tool_called(turn, "2", "memory_insert", '{"label": "\\u001b[2J\\u202e"}'))
        chat.after(world.delta(turn, f"{HOSTILE}\n\n{entities}"))
        waiting = world.accept(HOSTILE)
        chat.after(world.queued(waiting))
        await talk.terminal.shows("(waits)", "Ctrl-C stops the reply")
        chat.after(world.failed(turn, "model_error", HOSTILE, retryable=True, text=f"{HOSTILE}\n\n{entities}"))
        chat.after(world.event("agent.status", status="active", reason=HOSTILE))
        await talk.terminal.shows("/retry tries again.")
        for command, seen in (
            ("memory", "context"),
            ("usage", "budget"),
            ("devices", "abcde"),
            ("history", "beginning"),
            ("search a", "❯ /search a"),
        ):
            talk.type(f"/{command}{ENTER}")
            await talk.terminal.shows(f"❯ /{command}", seen)
        chat.offline(HOSTILE)
        await talk.terminal.shows("offline")
        written = talk.terminal.raw
    for forbidden in (
        "\x1b[2J",
        "\x1b]",
        "\x1bP",
        "\x07",
        "\x08\x7f",
        "\x9b",
        "\x90",
        "\x9c",
        "\x00",
        "\u202e",
        "\u2066",
    ):
        assert forbidden not in written, repr(written[max(written.find(forbidden) - 200, 0) :][:300])
    assert r"\x1b[2J" in written


@pytest.mark.parametrize(("columns", "rows"), [(20, 8), (33, 12), (200, 60), (12, 4)])
async def test_terminals_of_any_size_show_the_reply(columns: int, rows: int) -> None:
    async with talking(columns=columns, rows=rows) as talk:
        chat, world = talk.chat, talk.chat.world
        turn = world.accept("Hi")
        text = "# Title\n\n- one two three four five six seven\n- 漢字漢字漢字漢字漢字漢字\n\n"
        text += "| a | b |\n|---|---|\n| 1 | 2 |\n\nשלום עולם"
        chat.after(world.started(turn))
        for start in range(0, len(text), 7):
            chat.after(world.delta(turn, text[start : start + 7]))
        chat.after(world.completed(turn, text))
        await talk.terminal.shows("$0.0012")
        shown = "".join(talk.terminal.lines()).replace(" ", "")
        for part in ("Title", "seven", "שלום", "עולם"):
            assert part in shown
        assert shown.count("漢") == 6
