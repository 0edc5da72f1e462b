"""The local stack: its processes, who can reach them, and that they are restarted."""

import asyncio
import socket
import struct
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import jwt
import psycopg
import pytest

from server.stack import control
from server.stack.layout import Layout
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack, read_env
from tests.stack.waiting import serving_again

ROOT = Path(__file__).parents[2]
SERVICES = {"postgres", "redis", "supabase", "litellm", "letta", "server"}
LISTEN = "0A"


@pytest.fixture
def layout(stack: RunningStack) -> Layout:
    """The running stack's directory, to read its secrets; its ports are taken from `stack.env` and `status`."""
    return Layout(stack.data_dir, api_port=0)


def chat(stack: RunningStack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "server", *arguments, "--data-dir", str(stack.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def addresses_listening(port: int) -> set[str]:
    """The local addresses on which something listens at this port, by the kernel's tables."""
    addresses = set()
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, listening = local.partition(":")
            if state == LISTEN and int(listening, 16) == port:
                words = [int(address[i : i + 8], 16) for i in range(0, len(address), 8)]
                addresses.add(socket.inet_ntop(family, struct.pack(f"={len(words)}I", *words)))
    return addresses


def test_every_service_runs_with_its_own_process_port_and_memory(stack: RunningStack) -> None:
    rows = stack.status()
    assert set(rows) == SERVICES
    assert {row["state"] for row in rows.values()} == {"running"}
    assert len({row["pid"] for row in rows.values()}) == len({row["port"] for row in rows.values()}) == len(rows)
    assert all(row["rss"] > 1_000_000 for row in rows.values())


def test_no_service_listens_beyond_loopback(stack: RunningStack) -> None:
    listening = {name: addresses_listening(row["port"]) for name, row in stack.status().items()}
    assert listening == {name: {"127.0.0.1"} for name in SERVICES}


def test_stack_env_is_private_and_has_the_names_of_the_example(stack: RunningStack) -> None:
    file = stack.data_dir / "stack.env"
    assert file.stat().st_mode & 0o777 == 0o600
    assert set(read_env(file)) <= set(read_env(ROOT / ".env.example"))


def test_files_with_secrets_are_private(stack: RunningStack) -> None:
    private = [stack.data_dir / name for name in ("secrets.json", "stack.env", "supabase/signing-key.json")]
    private += (stack.data_dir / "logs").glob("*.log")
    assert {oct(file.stat().st_mode & 0o777) for file in private} == {"0o600"}


@pytest.mark.parametrize(("login", "other"), [("letta", "litellm"), ("litellm", "letta")])
def test_a_service_cannot_enter_anothers_database(stack: RunningStack, layout: Layout, login: str, other: str) -> None:
    port, password = stack.status()["postgres"]["port"], layout.known(f"postgres_{login}")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(f"postgresql://{login}:{password}@127.0.0.1:{port}/{other}")


def test_postgres_requires_a_password(stack: RunningStack) -> None:
    port = stack.status()["postgres"]["port"]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres:wrong@127.0.0.1:{port}/postgres")


async def test_access_tokens_are_signed_and_published_as_hosted_supabase_does(
    stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    url, key = stack.env["SUPABASE_URL"], stack.env["SUPABASE_ANON_KEY"]
    credentials = {"email": "token@example.com", "password": "Passw0rd-2026"}
    for path in ("signup", "token?grant_type=password"):
        async with http.post(f"{url}/auth/v1/{path}", json=credentials, headers={"apikey": key}) as response:
            session = await response.json()
    async with http.get(f"{url}/auth/v1/.well-known/jwks.json") as response:
        keys = jwt.PyJWKSet.from_dict(await response.json())
    header = jwt.get_unverified_header(session["access_token"])
    claims = jwt.decode(
        session["access_token"],
        keys[header["kid"]].key,
        algorithms=["ES256"],
        audience="authenticated",
        issuer=f"{url}/auth/v1",
    )
    assert claims["sub"] == session["user"]["id"]


async def test_a_token_signed_with_the_internal_shared_secret_is_refused(
    stack: RunningStack, layout: Layout, http: aiohttp.ClientSession
) -> None:
    secret = layout.known("supabase_jwt")
    assert secret is not None
    forged = jwt.encode({"sub": "0", "role": "service_role", "aud": "authenticated", "exp": 4e9}, secret, "HS256")
    headers = {"apikey": stack.env["SUPABASE_ANON_KEY"], "Authorization": f"Bearer {forged}"}
    async with http.get(f"{stack.env['SUPABASE_URL']}/rest/v1/profiles", headers=headers) as response:
        assert response.status == 401


async def test_requests_that_reach_a_new_supabase_at_once_all_succeed(
    stack: RunningStack, http: aiohttp.ClientSession
) -> None:
    with own_supabase(stack, "first_requests") as env:
        headers = {"apikey": env["SUPABASE_SERVICE_KEY"]}
        url = f"{env['SUPABASE_URL']}/rest/v1/user_profiles?select=id"

        async def ask() -> tuple[int, str]:
            async with http.get(url, headers=headers) as response:
                return response.status, await response.text()

        assert await asyncio.gather(*(ask() for _ in range(20))) == [(200, "[]")] * 20


async def test_letta_refuses_requests_without_its_password(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{stack.env['LETTA_BASE_URL']}/v1/agents/") as response:
        assert response.status == 401


def test_a_second_chat_up_is_refused_in_one_sentence(stack: RunningStack) -> None:
    second = chat(stack, "up")
    assert second.returncode == 1
    assert "already running" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.alone
@pytest.mark.parametrize("service", ["redis", "supabase"])
async def test_a_killed_service_is_restarted_at_its_port_and_logged(
    stack: RunningStack, http: aiohttp.ClientSession, service: str
) -> None:
    before, moment = stack.status()[service], datetime.now(UTC).isoformat(timespec="milliseconds")
    stack.kill(service)
    told = []
    for text in control.follow_log(stack.data_dir, "stack", lines=100):
        told += [line for line in text.splitlines() if line >= moment and f" {service} " in line]
        if told and "running again" in told[-1]:
            break
    assert "died (signal 9); restarting" in told[0]
    after = stack.status()[service]
    assert (after["state"], after["port"]) == ("running", before["port"])
    assert after["pid"] != before["pid"]
    await serving_again(stack, http)
