"""The mails that the local Supabase would have sent: stored in a file, shown by `chat mails`."""

import asyncio
import json
import subprocess
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from server.stack.environments import Node
from server.stack.layout import Layout
from server.stack.mails import read_mails
from tests.stack.chat_client import TIMEOUT
from tests.stack.running_stack import RunningStack

MANY = """
import { MailFile } from "./mails.mjs";
const mails = new MailFile({ file: process.argv[1], projectUrl: "http://127.0.0.1:1" });
const send = (number) => mails.send({ to: "ada@example.com", subject: `${number}`, text: "no link" });
await Promise.all(Array.from({ length: 450 }, (_, number) => send(number)));
"""


async def chat_mails(stack: RunningStack, *options: str) -> str:
    """The output of `chat mails`."""
    command = [sys.executable, "-m", "server", "mails", "--data-dir", str(stack.data_dir), *options]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.fixture
async def address(stack: RunningStack) -> str:
    """An address for which a magic link was requested."""
    email = f"{uuid.uuid4().hex[:12]}@example.com"
    async with httpx.AsyncClient(timeout=TIMEOUT) as http:
        url, headers = f"{stack.env['SUPABASE_URL']}/auth/v1/otp", {"apikey": stack.env["SUPABASE_ANON_KEY"]}
        asked = {"redirect_to": "http://localhost:3000/in"}
        assert (await http.post(url, params=asked, json={"email": email}, headers=headers)).status_code == 200
    return email


async def test_a_mail_is_shown_with_its_link_and_its_code(stack: RunningStack, address: str) -> None:
    shown = (await chat_mails(stack, "--to", address.upper())).splitlines()

    assert shown[0].endswith(f"{address}  Your Magic Link")
    assert shown[1].strip().startswith(f"{stack.env['SUPABASE_URL']}/auth/v1/verify?token=")
    assert shown[1].endswith("&redirect_to=http%3A%2F%2Flocalhost%3A3000%2Fin")
    assert shown[2].strip().removeprefix("code ").isdigit()


async def test_mails_can_be_listed_as_json(stack: RunningStack, address: str) -> None:
    [mail] = json.loads(await chat_mails(stack, "--to", address, "--json"))
    assert (mail["to"], mail["kind"]) == (address, "magiclink")
    assert mail["link"] in mail["text"]


def test_only_the_newest_mails_are_kept(stack: RunningStack, tmp_path: Path) -> None:
    layout, file = Layout(stack.data_dir, api_port=0), tmp_path / "mails.jsonl"

    subprocess.run(
        [str(Node(layout).program), "--input-type=module", "-e", MANY, str(file)],
        cwd=layout.environment("supabase"),
        check=True,
    )

    subjects = [int(mail.subject) for mail in read_mails(file)]
    assert subjects == list(range(200, 450))
    assert file.stat().st_mode & 0o777 == 0o600
