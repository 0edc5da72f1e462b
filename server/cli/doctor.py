"""`chat doctor`: checks all services concurrently and prints the findings as a table or as JSON."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import click
import httpx
from pydantic import HttpUrl, ValidationError

from server.adapters.supabase.inspection import SupabaseInspection
from server.app.clients import open_letta, open_litellm
from server.config.environment import env_file_option, misspelt, read_settings, settings_problems
from server.config.settings import Settings
from server.doctor import configuration, redis
from server.doctor.addresses import LETTA, LITELLM, SUPABASE, Place, located
from server.doctor.findings import CHECK_SECONDS, Check, examine, fail
from server.doctor.letta import LettaChecks
from server.doctor.litellm import LiteLLMChecks
from server.doctor.supabase import SupabaseChecks
from server.observability.logs import configure_logging
from server.ports import Diagnosis, Level
from server.terminal import coloured, echo_coloured, printable

COLOURS: dict[Level, str] = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of {service, name, level, message, remedy}.")
@env_file_option
def doctor(as_json: bool, env_file: Path | None) -> None:
    """Check settings and services: what is wrong, and how to fix it. Exit code 1 if a check fails."""
    configure_logging("development", "CRITICAL")
    try:
        settings = read_settings(env_file)
    except ValidationError as error:
        remedy = "See .env.example."
        problems = settings_problems(error, env_file)
        diagnoses = [Diagnosis("settings", "values", fail(message, remedy)) for message in problems]
    else:
        diagnoses = asyncio.run(diagnose(settings, misspelt(env_file)))
    echo_coloured(_json(diagnoses) if as_json else table(diagnoses))
    if any(diagnosis.finding.level == "fail" for diagnosis in diagnoses):
        raise SystemExit(1)


async def diagnose(
    settings: Settings, misspelt_names: Sequence[tuple[str, str]] = (), check_seconds: float = CHECK_SECONDS
) -> list[Diagnosis]:
    """Run all checks, those of different services concurrently, each for at most `check_seconds`."""
    async with (
        httpx.AsyncClient() as http,
        open_letta(settings, attempts=1) as letta,
        open_litellm(settings, attempts=1) as litellm,
    ):
        keys = settings.supabase_anon_key, settings.supabase_service_key
        supabase = SupabaseInspection(str(settings.supabase_url), *keys, http)
        services = (
            configuration.checks(settings, misspelt_names),
            _located(SupabaseChecks(settings, supabase).all(), SUPABASE, settings.supabase_url, http),
            _located(LiteLLMChecks(settings, litellm).all(), LITELLM, settings.litellm_base_url, http),
            _located(LettaChecks(settings, letta).all(), LETTA, settings.letta_base_url, http),
            redis.checks(settings),
        )
        found = await asyncio.gather(*(examine(checks, check_seconds) for checks in services))
        return list(chain.from_iterable(found))


def _located(checks: list[Check], place: Place, url: HttpUrl, http: httpx.AsyncClient) -> list[Check]:
    """Let the first check, whether the service responds, look for its right address."""
    return [located(checks[0], place, str(url), http), *checks[1:]]


def table(diagnoses: Iterable[Diagnosis]) -> str:
    """One line per check, and below a problem how to fix it."""
    lines = []
    for diagnosis in diagnoses:
        finding = diagnosis.finding
        level = coloured(f"{finding.level:<4}", COLOURS[finding.level])
        lines.append(f"{level}  {diagnosis.service + ' ' + diagnosis.name:<24}  {printable(finding.message)}")
        if finding.remedy:
            lines.append(f"{'':<32}→ {printable(finding.remedy)}")
    return "\n".join(lines)


def _json(diagnoses: Iterable[Diagnosis]) -> str:
    rows = [{"service": one.service, "name": one.name, **asdict(one.finding)} for one in diagnoses]
    return json.dumps(rows, indent=2)
