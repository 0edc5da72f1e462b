"""A whole life of a user and of their operator on the real services: no secret appears where it must not.

The scanner knows every secret that the stack has generated and every one that the life makes. It reads all answers,
frames, events, outputs of commands, logs, metrics, command lines, all rows of all three databases, and Redis.
"""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import psycopg
import pytest
from pydantic import SecretStr

from server.api.router import ROUTES
from server.keyring import KeyRing
from server.stack.mails import read_mails
from tests.secrets.life import TIMEOUT, Client, run_command
from tests.secrets.places import another_database, command_lines, logs, redis_values, sizes_of_logs, tables
from tests.secrets.scanner import Scanner, Stored
from tests.stack.own_redis import OwnRedis
from tests.stack.own_server import INHERITED, ServerProcess, server_environment
from tests.stack.own_supabase import own_supabase
from tests.stack.running_stack import RunningStack

STORED = (
    Stored("access token", "answer POST /auth/*", "a sign-in is answered with tokens"),
    Stored("refresh token", "answer POST /auth/*", "a sign-in is answered with tokens"),
    Stored("ticket", "answer POST /chat/ticket", "the client asked for it"),
    Stored("API key", "answer POST /user/api-keys", "shown once, when it is made"),
    Stored("secret as a field's name", "answer *", "to its sender alone: the pointer of an error names the field"),
    Stored("secret as a field's name", "frames", "likewise"),
    Stored("refresh token", "database supabase auth.refresh_tokens", "Supabase Auth looks them up by their text"),
)
PUBLIC = frozenset({"supabase_publishable"})
"""What `secrets.json` holds beside secrets."""


@dataclass(slots=True)
class Lab:
    """A server of this test's own, at the most talkative level of logs, with the secrets of everything around it."""

    scanner: Scanner
    env: dict[str, str]
    server: ServerProcess
    http: aiohttp.ClientSession
    supabase: Path
    """The folder with the mails and the log of its Supabase."""
    logs_before: dict[Path, int]
    email: str = field(default_factory=lambda: f"{uuid.uuid4().hex[:12]}@example.com")

    def password(self, kind: str = "password of the user") -> str:
        """A fresh one."""
        return self.scanner.learn(kind, f"Pw1 {uuid.uuid4().hex}")

    def client(self, token: str | None = None) -> Client:
        return Client(self.http, self.server.url, self.scanner, token)

    async def command(self, *arguments: str) -> str:
        return await run_command(self.scanner, self.env, *arguments)

    async def mail(self, kind: str, to: str) -> dict[str, str]:
        """The proof in the newest mail of this kind to an address, once there is one: the server answers after the same
        time whether or not there is an account, and may have it sent later."""
        async with asyncio.timeout(TIMEOUT):
            while not (mails := [one for one in read_mails(self.supabase / "mails.jsonl", to) if one.kind == kind]):
                await asyncio.sleep(0.1)
        mail = mails[-1]
        assert mail.link is not None
        assert mail.code is not None
        token = parse_qs(urlsplit(mail.link).query)["token"][0]
        if len(token) > len(mail.code):
            self.scanner.learn("token of a mail's link", token)
        return {"email": to, "token": mail.code}

    def model_key(self, user_id: str) -> None:
        """Learn the user's key at LiteLLM in clear."""
        with psycopg.connect(self.env["SUPABASE_DB_URL"]) as connection:
            row = connection.execute("select litellm_key from user_profiles where id = %s", [user_id]).fetchone()
        assert row is not None
        keys = KeyRing(SecretStr(self.env["SECRET_KEY"]))
        self.scanner.learn("model key of the user", keys.open(user_id, row[0]).get_secret_value())


@pytest.fixture
async def lab(
    stack: RunningStack, redis_server: OwnRedis, http: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Lab]:
    scanner = Scanner(STORED)
    for name, value in json.loads((stack.data_dir / "secrets.json").read_text()).items():
        if name not in PUBLIC:
            scanner.learn(f"{name} of the stack", value)
    before = sizes_of_logs(stack.data_dir / "logs")
    with ExitStack() as running:
        supabase = running.enter_context(own_supabase(stack, "secret_tests", confirm_email=True))
        scanner.learn("signing key of tokens", signing_key(Path(supabase["SIGNING_KEY_FILE"])))
        env = server_environment(stack, supabase) | {
            "REDIS_URL": redis_server.url,
            "ENVIRONMENT": "production",
            "DEMO_MODEL": "",
            "DEMO_USER": "",
            "LOG_LEVEL": "DEBUG",
            "SECRET_KEY": scanner.learn("SECRET_KEY", uuid.uuid4().hex + uuid.uuid4().hex),
        }
        server = running.enter_context(ServerProcess(env, tmp_path / "server.log", forked=False))
        await server.ready()
        yield Lab(scanner, env | _inherited(), server, http, Path(supabase["LOG_FILE"]).parent, before)


def signing_key(file: Path) -> str:
    return str(json.loads(file.read_text())["d"])


def _inherited() -> dict[str, str]:
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


async def test_no_secret_appears_where_it_must_not(
    lab: Lab, stack: RunningStack, redis_server: OwnRedis, tmp_path: Path
) -> None:
    user = await register(lab)
    profile = await user.succeed("GET", "/user/profile")
    await talk(lab, user)
    lab.model_key(profile["id"])
    await use_a_key(user)
    await change_credentials(lab, user)
    operator = await operate(lab, profile["id"])
    lab.model_key(profile["id"])
    await misuse(lab, user, operator)
    await leave(user, operator, profile["id"])
    await with_wrong_keys(lab, tmp_path)
    async with lab.http.get(f"{lab.server.url}/metrics") as response:
        lab.scanner.read("metrics", await response.text())
    for place, text in _places(lab, stack, redis_server, tmp_path):
        lab.scanner.read(place, text)

    leaks = "\n".join(f"{leak}: {lab.scanner.around(leak)}" for leak in lab.scanner.leaks())
    assert not leaks, leaks
    unneeded = "\n".join(map(str, lab.scanner.unused()))
    assert not unneeded, unneeded


async def register(lab: Lab) -> Client:
    """Register, with mistakes, and confirm the address by the mail."""
    user, password = lab.client(), lab.password()
    wrong = lab.password("wrong password")
    credentials = {"email": lab.email, "password": password}
    assert (await user.call("POST", "/auth/register", credentials))[0] == 202
    assert (await user.call("POST", "/auth/login", credentials))[0] == 401
    assert (await user.call("POST", "/auth/resend", {"email": lab.email}))[0] == 202
    await user.sign_in("/auth/verify", {**await lab.mail("signup", lab.email), "type": "signup"})
    assert (await user.call("POST", "/auth/login", {"email": lab.email, "password": wrong}))[0] == 401
    await user.sign_in("/auth/login", credentials)
    await user.sign_in("/auth/refresh", {"refresh_token": user.seen["refresh token"]})
    user.seen["password"] = password
    return user


async def talk(lab: Lab, user: Client) -> None:
    """Messages by each way, one that fails at the model, and all that can be read."""
    bearer = {"Authorization": f"Bearer {user.token}"}
    await user.succeed("POST", "/chat/message", {"content": "ECHO by REST", "stream": False})
    await user.succeed("POST", "/chat/message", {"content": "ECHO by SSE", "stream": True})
    await user.socket("ECHO with a header", headers=bearer)
    await user.socket("ECHO with a first frame", first={"type": "auth", "token": str(user.token)})
    ticket = (await user.succeed("POST", "/chat/ticket"))["ticket"]
    assert (await user.first_event(ticket)).startswith("id:")
    assert "401" not in (await user.first_event((await user.succeed("POST", "/chat/ticket"))["ticket"]))
    for directive in ("ERR 401", "ERR 400", "ERR 500", "DROP", "POLICY"):
        await user.call("POST", "/chat/message", {"content": directive, "stream": False})
    for path in ("/chat/history", "/agent/status", "/agent/memory", "/user/usage", "/auth/me"):
        await user.succeed("GET", path)
    await user.succeed("GET", "/user/usage", Accept="text/csv")


async def use_a_key(user: Client) -> None:
    """Make an API key, use it, list and revoke it; it is refused from then on."""
    made = await user.succeed("POST", "/user/api-keys", {"name": "a script", "scopes": ["read", "chat"]})
    key = user.seen["API key"]
    await user.succeed("GET", "/chat/history", token=key)
    await user.succeed("POST", "/chat/message", {"content": "ECHO by a key", "stream": False}, token=key)
    await user.socket("ECHO by a key", headers={"Authorization": f"Bearer {key}"})
    await user.succeed("GET", "/user/api-keys")
    await user.succeed("GET", "/auth/sessions")
    await user.succeed("DELETE", f"/user/api-keys/{made['id']}")
    assert (await user.call("GET", "/chat/history", token=key))[0] == 401


async def change_credentials(lab: Lab, user: Client) -> None:
    """Recover and change the password, change the address, sign out."""
    assert (await user.call("POST", "/auth/recover", {"email": lab.email}))[0] == 202
    proof, password, next_one = await lab.mail("recovery", lab.email), lab.password(), lab.password()
    await user.sign_in("/auth/reset", {**proof, "password": password})
    wrong = {"password": next_one, "current_password": user.seen["password"]}
    assert (await user.call("POST", "/auth/password", wrong))[0] in (401, 403, 204)
    await user.call("POST", "/auth/password", {"password": next_one, "current_password": password})
    await user.call("POST", "/auth/password", {"password": password, "current_password": next_one})
    await user.call("POST", "/auth/email", {"email": f"new-{lab.email}", "current_password": password})
    for known in (password, next_one):
        status, _ = await user.call("POST", "/auth/login", {"email": lab.email, "password": known})
        if status == 200:
            user.token, user.seen["password"] = user.seen["access token"], known


async def operate(lab: Lab, user_id: str) -> Client:
    """An operator's day, over HTTP and by commands."""
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    operator = lab.client()
    credentials = {"email": email, "password": lab.password("password of the operator")}
    assert (await operator.call("POST", "/auth/register", credentials))[0] == 202
    await operator.sign_in("/auth/verify", {**await lab.mail("signup", email), "type": "signup"})
    operator_id = (await operator.succeed("GET", "/auth/me"))["id"]
    assert operator_id in await lab.command("users", "admin", operator_id, "on")
    await operator.succeed("GET", f"/admin/users/{user_id}")
    await operator.succeed("GET", "/admin/users")
    created = {"email": f"{uuid.uuid4().hex[:12]}@example.com", "password": lab.password("password of another user")}
    await operator.call("POST", "/admin/users", created)
    await operator.succeed("POST", f"/admin/users/{user_id}/rotate-key", {"at_once": True})
    await operator.succeed("PATCH", f"/admin/users/{user_id}/plan", {"budget": "3"})
    await operator.succeed("POST", f"/admin/users/{user_id}/block", {"reason": "a test"})
    await operator.succeed("POST", f"/admin/users/{user_id}/unblock")
    await operator.succeed("POST", f"/admin/users/{user_id}/repair")
    await operator.succeed("GET", "/admin/health")
    await operator.succeed("GET", "/admin/audit")
    for arguments in (("list",), ("show", user_id), ("rotate-key", user_id), ("repair", user_id), ("audit",)):
        await lab.command("users", *arguments)
    for command in (("doctor",), ("doctor", "--json"), ("billing", "audit", user_id), ("migrate",)):
        await lab.command(*command)
    return operator


async def leave(user: Client, operator: Client, user_id: str) -> None:
    """Export everything, sign in and out, forget the history, delete the account."""
    await user.succeed("GET", "/user/export")
    await user.succeed("POST", "/agent/memory/archival", {"text": "likes rain"})
    await user.succeed("DELETE", "/chat/history")
    await user.succeed("POST", "/auth/logout", {"scope": "others"})
    assert (await user.call("DELETE", "/user", {"current_password": "not the right one 1"}))[0] in (202, 204, 401, 403)
    await user.call("DELETE", "/user", {"current_password": user.seen["password"]})
    assert (await user.call("GET", "/auth/me"))[0] in (401, 403, 404)
    await operator.call("GET", f"/admin/users/{user_id}")


async def misuse(lab: Lab, user: Client, operator: Client) -> None:
    """Secrets in the wrong place of every endpoint: nothing that is refused is quoted."""
    secret = lab.scanner.learn("secret in the wrong place", f"sk-{uuid.uuid4().hex}")
    name = lab.scanner.learn("secret as a field's name", f"sk-{uuid.uuid4().hex}")
    wrong: tuple[Any, ...] = ({name: secret}, {"password": [secret]}, {"email": secret}, {"content": {"a": secret}})
    wrong += (secret, [secret], {"value": {"x": secret}}, {"name": {"x": secret}}, {"refresh_token": secret})
    for route in ROUTES:
        path = _filled(route.path)
        if path is None or route.credential == "socket":
            continue
        for client in (lab.client(), user, operator)[: 3 if route.credential == "header" else 1]:  # streams do not end
            await client.call(route.method, f"{path}?{name}={secret}&limit={secret}", token=secret)
            await client.call(route.method, f"{path}?limit={secret}&ticket={secret}&after={secret}")
            headers = {"Last-Event-ID": secret, "Idempotency-Key": f"{secret} ", "Prefer": secret, "Accept": secret}
            await client.call(route.method, path, {"unknown": secret}, **headers)
        for body in wrong if route.body is not None else ():
            await user.call(route.method, path, body)
    for frame in ({"type": "auth", "token": secret}, {"type": secret, name: secret}, {"type": "message", name: 1}):
        await lab.client().socket(secret, first=frame)
    await lab.client().socket(secret, protocols=("chat.v1", f"bearer.{secret}"))


def _filled(path: str) -> str | None:
    """The path below /api/v1 with ids of nobody; None for pages and for what would end the client's stream."""
    if not path.startswith("/api/v1") or path in ("/api/v1/auth/logout", "/api/v1/user"):
        return None
    filled = path.removeprefix("/api/v1").replace("{label}", "human")
    return "/".join(str(uuid.UUID(int=1)) if part.startswith("{") else part for part in filled.split("/"))


async def with_wrong_keys(lab: Lab, tmp_path: Path) -> None:
    """A server whose keys the services refuse, and a conversation over it."""
    changed = {
        "LETTA_API_TOKEN": uuid.uuid4().hex,
        "LITELLM_MASTER_KEY": f"sk-{uuid.uuid4().hex}",
        "SECRET_KEY": uuid.uuid4().hex * 2,
    }
    async with asyncio.TaskGroup() as servers:
        for name, value in changed.items():
            lab.scanner.learn(f"another {name}", value)
            servers.create_task(_with_wrong_key(lab, name, value, tmp_path))


async def _with_wrong_key(lab: Lab, name: str, value: str, tmp_path: Path) -> None:
    with ServerProcess(lab.env | {name: value}, tmp_path / f"wrong-{name}.log") as server:
        await server.ready()
        client = Client(lab.http, server.url, lab.scanner)
        body = {"email": f"{name.lower()}@example.com", "password": lab.password("password of another user")}
        await client.call("POST", "/auth/register", body)
        await client.sign_in("/auth/verify", {**await lab.mail("signup", body["email"]), "type": "signup"})
        await client.call("POST", "/chat/message", {"content": "ECHO refused", "stream": False})
        await client.call("GET", "/agent/memory")
        await client.call("GET", "/user/usage")
    await run_command(lab.scanner, lab.env | {name: value}, "doctor")


def _places(lab: Lab, stack: RunningStack, redis_server: OwnRedis, tmp_path: Path) -> Iterator[tuple[str, str]]:
    yield from logs(tmp_path)
    yield from logs(lab.supabase)
    yield from logs(stack.data_dir / "logs", lab.logs_before)
    yield from command_lines({name: row["pid"] for name, row in stack.status().items()} | {"own": lab.server.pid})
    yield from redis_values(redis_server.client)
    yield from tables("supabase", lab.env["SUPABASE_DB_URL"])
    for name in ("letta", "litellm"):
        yield from tables(name, another_database(stack.env["SUPABASE_DB_URL"], name))
