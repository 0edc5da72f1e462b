"""The process under test, from outside, and the tally of a run: what was sent, what came back, what was wrong."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.fuzz.server import MARK, Identity, Report, Target

MEMORY_GROWTH = 48 * 1024 * 1024
"""Bytes that the process may grow between its second fresh start and its last: caches of libraries fill up."""
_OPERATORS = "/api/v1/admin/"
_ERROR_LINE = re.compile(r'"level": ?"(error|critical)"')


@dataclass(slots=True)
class Tally:
    """Counts of a run. `findings` counts each kind of thing that is wrong; `examples` has one of each."""

    inputs: Counter[str] = field(default_factory=Counter)
    answers: Counter[int] = field(default_factory=Counter)
    closes: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    stuck_tasks: int = 0
    leaks: int = 0
    memory: list[int] = field(default_factory=list)
    """Of the process after each fresh start, in bytes."""

    @property
    def total(self) -> int:
        return self.inputs.total()

    @property
    def server_errors(self) -> int:
        return sum(count for status, count in self.answers.items() if status >= 500)

    @property
    def limited(self) -> float:
        """The share of answers that a rate limit gave."""
        return self.answers[429] / max(1, self.answers.total())

    @property
    def growth(self) -> int:
        """Bytes by which the memory has grown since the second fresh start, when everything was loaded."""
        return self.memory[-1] - self.memory[1] if len(self.memory) > 2 else 0

    def wrong(self, finding: str, example: str = "") -> None:
        self.findings[finding] += 1
        self.examples.setdefault(finding, example[:600])

    def judge(self, target: Target, who: Identity, path: str, status: int, text: str) -> None:
        """Count an answer, and look for errors of the server and for what `who` must not see."""
        self.answers[status] += 1
        if status >= 500:
            self.wrong(f"{status} for {path}", text)
        self.look(target, who, path, text)

    def look(self, target: Target, who: Identity, place: str, text: str) -> None:
        """Look for another user's data and for secrets in what somebody was sent."""
        if MARK in text and not (who.name == "an admin" and place.startswith(_OPERATORS)):
            self.leaks += 1
            self.wrong(f"{who.name} sees another user's data at {place}", text)
        for name, secret in target.secrets.items():
            if secret in text:
                self.leaks += 1
                self.wrong(f"{who.name} sees the {name} at {place}", text)

    def settle(self, target: Target, report: Report) -> None:
        """Judge the process after all clients have left."""
        self.stuck_tasks += len(report.tasks)
        for task in report.tasks:
            self.wrong(f"a task did not end: {re.sub(r'[0-9]+', 'N', task)}")
        if report.connections:
            self.wrong(f"{report.connections} connections were not closed")
        for line in report.log.splitlines():
            if _ERROR_LINE.search(line):
                self.wrong("an error was logged", line)
        self.look(target, Identity("a reader"), "the log", report.log)

    def conclude(self) -> None:
        """Judge the run as a whole."""
        if self.growth > MEMORY_GROWTH:
            self.wrong(f"memory grew by {self.growth // 2**20} MiB")
        if self.limited > 0.01:
            self.wrong(f"{self.limited:.1%} of the answers were 429")

    def summary(self) -> str:
        """What happened, a fact per line."""
        lines = [
            f"inputs        {self.total}  ({_listed(self.inputs)})",
            f"answers       {_listed(self.answers)}",
            f"closes        {_listed(self.closes)}",
            f"5xx           {self.server_errors}",
            f"429           {self.limited:.2%}",
            f"leaks         {self.leaks}",
            f"stuck tasks   {self.stuck_tasks}",
            f"memory        {', '.join(f'{one // 2**20}' for one in self.memory)} MiB after each fresh start",
        ]
        for finding, times in self.findings.most_common():
            lines.append(f"WRONG {times} x {finding}\n      {self.examples[finding]}")
        return "\n".join(lines)


def _listed(counter: Counter[Any]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counter.items())) or "none"


class FuzzedServer:
    """`with FuzzedServer() as server:`, then `renew` as often as wanted."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.fuzz.server"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def renew(self, tally: Tally) -> Target:
        """Discard everything and begin anew."""
        fresh = self._ask("renew")
        fresh["identities"] = tuple(Identity(**one) for one in fresh["identities"])
        tally.memory.append(self._report().memory)
        return Target(**fresh)

    def settle(self, target: Target, tally: Tally) -> None:
        """Judge what the clients, who have left, have left behind."""
        tally.settle(target, self._report())

    def _report(self) -> Report:
        return Report(**{name: _frozen(value) for name, value in self._ask("report").items()})

    def _ask(self, command: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
