"""The driver of clients/conformance for this client: performs what the server asks for, and reports what it shows.

python -m clients.conformance python clients/python/test/conformance.py [scenario …]"""

import asyncio
import os
import sys
from contextlib import suppress
from typing import Any

import httpx

from ai_chat_client import Chat, ChatMessage

Json = dict[str, Any]


def shown(message: ChatMessage) -> Json:
    return {
        "turn_id": message.turn_id,
        "role": message.role,
        "text": message.text,
        "status": message.status,
        "reasoning": message.reasoning,
        "tools": [{"name": tool.name, "status": tool.status} for tool in message.tools],
        "error": message.error.code if message.error else None,
        "can_retry": message.can_retry,
        "cost": message.cost,
        "cost_status": message.cost_status,
        "tokens": message.usage["total_tokens"] if message.usage else None,
    }


def report(chat: Chat) -> Json:
    state = chat.state
    return {
        "connection": state.connection,
        "error": state.error.code if state.error else None,
        "messages": [shown(message) for message in state.messages],
        "queue": list(state.queue),
        "agent": state.agent.status,
        "budget_percent": state.budget.percent if state.budget else None,
        "has_more": state.history.has_more,
        "is_loading": state.history.is_loading,
    }


class Driver:
    def __init__(self, suite: str, http: httpx.AsyncClient) -> None:
        self._suite, self._http = suite, http

    async def play(self, scenario: str) -> str | None:
        """None, or what is wrong."""
        run = (await self._http.post(f"{self._suite}/runs", json={"scenario": scenario})).json()
        control = f"{self._suite}/runs/{run['run']}"

        async def get_token(expired: bool) -> str:
            answer = await self._http.get(f"{control}/token", params={"expired": str(expired).lower()})
            return str(answer.json()["token"])

        async with Chat(run["url"], get_token) as chat, asyncio.TaskGroup() as reports:
            while True:
                action = (await self._http.get(f"{control}/next")).json()
                match action["do"]:
                    case "send":
                        chat.send(action["text"])
                    case "interrupt":
                        chat.interrupt(action["text"])
                    case "cancel":
                        chat.cancel()
                    case "retry":
                        chat.retry(action["turn_id"])
                    case "older":
                        await chat.load_older()
                    case "report":
                        reports.create_task(self._report_until_accepted(chat, f"{control}/report"))
                    case "end":
                        return None if action["passed"] else str(action["problem"])

    async def _report_until_accepted(self, chat: Chat, url: str) -> None:
        async with asyncio.timeout(120):
            with suppress(httpx.HTTPError):
                while not (await self._http.post(url, json=report(chat))).json()["accepted"]:
                    await asyncio.sleep(0.02)


async def main(only: list[str]) -> int:
    suite = os.environ["CONFORMANCE_URL"]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=300, limits=limits) as http:
        scenarios = [
            scenario
            for scenario in (await http.get(f"{suite}/scenarios")).json()
            if not only or scenario["name"] in only
        ]
        driver = Driver(suite, http)
        problems = await asyncio.gather(*(driver.play(scenario["name"]) for scenario in scenarios))
    for scenario, problem in zip(scenarios, problems, strict=True):
        print(f"not ok {scenario['name']}: {scenario['rule']}\n  {problem}" if problem else f"ok {scenario['name']}")
    failed = sum(problem is not None for problem in problems)
    print(f"{len(problems) - failed} passed, {failed} failed")
    return 1 if failed or not problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
