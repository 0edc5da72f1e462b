"""The messages of a marathon, compared byte for byte in all copies: on every device, in the history, in our
rows, in Letta, and in LiteLLM's log of what was paid."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import aiohttp
import psycopg
from psycopg.rows import dict_row

from tests.faults.marathon import Talker
from tests.faults.transcript import Json, content_of
from tests.reconcile.report import Report
from tests.stack.bookkeeper import Bookkeeper

TIMEOUT: Final = 120.0
MOST_CALLS: Final = 4
"""Model calls an attempt may have made that did not complete: a tool or two and a word about it."""


NAMES: Final = (
    "sent",
    "turns",
    "completed",
    "cancelled",
    "retried",
    "messages",
    "letta_runs",
    "model_calls",
    "spend_rows",
    "assembled",
    "looked_up",
    "unfinished",
    "connections",
)


class ConversationReconciler:
    """Reads the services with their own keys. `env` names them as `stack.env` does."""

    def __init__(self, env: Mapping[str, str], http: aiohttp.ClientSession) -> None:
        self._env = env
        self._http = http

    async def of(self, talker: Talker) -> Report:
        """All figures of one user, and their differences."""
        report = Report(Counter({"sent": len(talker.sent)}))
        rows = self._rows("select * from public.turns where user_id = %s order by number", talker.user.id)
        (profile,) = self._rows("select * from public.user_profiles where id = %s", talker.user.id)
        self._compare_turns(report, talker, rows)
        history = await self._history(talker)
        self._compare_history(report, talker, rows, history)
        self._compare_devices(report, talker, rows, history)
        calls = await self._compare_letta(report, rows, history, profile)
        await self._compare_spending(report, talker, rows, calls)
        return report

    # -- our rows, the history, the devices ----------------------------------------------------------------------

    def _rows(self, query: str, *values: str) -> list[Json]:
        with psycopg.connect(self._env["SUPABASE_DB_URL"], row_factory=dict_row) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def _compare_turns(self, report: Report, talker: Talker, rows: Sequence[Json]) -> None:
        statuses = Counter(row["status"] for row in rows)
        retried = sum(row["attempt"] - 1 for row in rows)
        report.counts.update(turns=len(rows), retried=retried)
        report.counts.update({status: statuses[status] for status in ("completed", "cancelled")})
        stored = Counter(row["client_message_id"] for row in rows)
        report.wrong += [f"message {message} is lost" for message in talker.sent if not stored[message]]
        report.wrong += [f"message {message} became {n} turns" for message, n in stored.items() if n > 1]
        for row in rows:
            line = talker.sent.get(row["client_message_id"])
            if line is None or row["status"] not in (("completed", "cancelled") if line.cancelled else ("completed",)):
                report.wrong.append(f"turn {row['id']} is {row['status']}, of {line}")

    async def _history(self, talker: Talker) -> list[Json]:
        """All messages, oldest first."""
        messages: list[Json] = []
        query = ""
        while True:
            page = await talker.devices[0].get(f"/chat/history?limit=100{query}")
            messages += page["data"]
            if not page["has_more"]:
                return messages[::-1]
            query = f"&before={page['next_cursor']}"

    def _compare_history(self, report: Report, talker: Talker, rows: Sequence[Json], history: Sequence[Json]) -> None:
        report.counts["messages"] = len(history)
        places = [(message["turn_id"], message["role"]) for message in history]
        answered = {message["turn_id"] for message in history if message["role"] == "assistant"}
        expected = [
            (str(row["id"]), role)
            for row in rows
            for role in (("user", "assistant") if str(row["id"]) in answered else ("user",))
        ]
        if places != expected:
            report.wrong.append(f"the history is {places} instead of {expected}")
        report.wrong += [
            f"turn {row['id']} has no reply"
            for row in rows
            if row["status"] == "completed" and str(row["id"]) not in answered
        ]
        sent = {message["turn_id"]: message["content"] for message in history if message["role"] == "user"}
        for row in rows:
            if sent.get(str(row["id"])) != talker.sent[row["client_message_id"]].content:
                report.wrong.append(f"turn {row['id']} keeps another message than was sent")

    def _compare_devices(self, report: Report, talker: Talker, rows: Sequence[Json], history: Sequence[Json]) -> None:
        replies = {message["turn_id"]: message["content"] for message in history if message["role"] == "assistant"}
        for device in talker.devices:
            seen = device.transcript
            report.counts["connections"] += device.connections
            report.counts["unfinished"] += len(seen.unfinished)
            report.wrong += seen.faults
            if set(seen.replies) != {str(row["id"]) for row in rows}:
                report.wrong.append(f"a device knows the turns {set(seen.replies)}")
            for turn_id, reply in seen.replies.items():
                stored = replies.get(turn_id, "")
                if reply.turn is None or content_of(reply.turn) != stored:
                    report.wrong.append(f"a device has {reply.turn} where the history has {stored!r}")
                elif reply.followed and reply.text == stored:
                    report.counts["assembled"] += 1
                else:
                    report.counts["looked_up"] += 1

    # -- Letta ---------------------------------------------------------------------------------------------------

    async def _compare_letta(
        self, report: Report, rows: Sequence[Json], history: Sequence[Json], profile: Json
    ) -> Counter[tuple[int, int]]:
        """Compare its completed runs with our completed turns. Returns their model calls as (prompt, completion)
        tokens."""
        member, conversation = profile["letta_member_id"], profile["letta_conversation_id"]
        runs = await self._letta_pages(member, "/v1/runs/", conversation_id=conversation)
        done = [run["id"] for run in runs if run["status"] == "completed"]
        report.counts["letta_runs"] = len(done)
        own = {row["run_id"]: row for row in rows if row["status"] == "completed"}
        report.wrong += [f"run {run_id} is of no completed turn" for run_id in done if run_id not in own]
        report.wrong += [f"turn {row['id']} has no completed run" for run_id, row in own.items() if run_id not in done]
        contents = {(message["turn_id"], message["role"]): message["content"] for message in history}
        calls: Counter[tuple[int, int]] = Counter()
        for run_id, row in own.items():
            asked, reply = _said(await self._letta_pages(member, f"/v1/runs/{run_id}/messages"))
            if asked.count(contents[str(row["id"]), "user"]) != 1:
                report.wrong.append(f"run {run_id} was asked {asked}")
            if reply != (stored := contents.get((str(row["id"]), "assistant"))):
                report.wrong.append(f"turn {row['id']} is {stored!r} here and {reply!r} in Letta")
            steps = await self._letta(member, f"/v1/runs/{run_id}/steps", limit=100)
            paid = [(step["prompt_tokens"], step["completion_tokens"]) for step in steps if step.get("total_tokens")]
            calls.update(paid)
            if row["attempt"] == 1 and row["usage"]["model_calls"] != len(paid):
                report.wrong.append(f"turn {row['id']} counts {row['usage']} where Letta has {len(paid)} calls")
        report.counts["model_calls"] = calls.total()
        return calls

    async def _letta_pages(self, member: str, path: str, **query: str) -> list[Json]:
        """All rows, oldest first. Pages of runs overlap."""
        found: dict[str, Json] = {}
        after: dict[str, str] = {}
        while True:
            page = await self._letta(member, path, limit=100, order="asc", **query, **after)
            if not {row["id"] for row in page} - set(found):
                return list(found.values())
            found |= {row["id"]: row for row in page}
            after = {"after": page[-1]["id"]}

    async def _letta(self, member: str, path: str, **query: str | int) -> list[Json]:
        headers = {"Authorization": f"Bearer {self._env['LETTA_API_TOKEN']}", "user_id": member}
        url = self._env["LETTA_BASE_URL"].rstrip("/") + path
        async with self._http.get(url, params=query, headers=headers) as response:
            assert response.status == 200, (path, response.status, await response.text())
            found: list[Json] = await response.json()
        return found

    # -- LiteLLM -------------------------------------------------------------------------------------------------

    async def _compare_spending(
        self, report: Report, talker: Talker, rows: Sequence[Json], calls: Counter[tuple[int, int]]
    ) -> None:
        """Each call of a completed turn was charged once. Other charged calls belong to attempts that did not
        complete."""
        async with asyncio.timeout(TIMEOUT):
            while calls - (paid := await self._paid(talker.user.id)):
                await asyncio.sleep(0.5)  # LiteLLM writes its rows in batches, seconds after the call
        report.counts["spend_rows"] = paid.total()
        lost = sum(row["attempt"] - (row["status"] == "completed") for row in rows)
        if (more := (paid - calls).total()) > lost * MOST_CALLS:
            report.wrong.append(f"{more} calls were paid beyond those of completed turns, for {lost} other attempts")

    async def _paid(self, user_id: str) -> Counter[tuple[int, int]]:
        """The successful calls of a user, by their tokens."""
        calls = await Bookkeeper(self._env, self._http).logged(user_id)
        return Counter((call.prompt_tokens, call.completion_tokens) for call in calls if call.status == "success")


def _said(messages: Sequence[Json]) -> tuple[list[str], str]:
    """The messages that a run was sent, and its reply. Reminders of broken-off turns are among the sent messages."""
    kinds = [message["message_type"] for message in messages]
    sent = len(kinds) - kinds[::-1].index("user_message")
    asked = [_text(message) for message in messages[:sent] if message["message_type"] == "user_message"]
    replied = [_text(message) for message in messages[sent:] if message["message_type"] == "assistant_message"]
    return asked, "\n\n".join(replied)


def _text(message: Json) -> str:
    """A Letta message's text, which is a string or a list of parts."""
    content: Any = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
