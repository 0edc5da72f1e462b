"""The running server for its operator: SIGTERM drains it, and its log has no message contents and no secrets."""

import asyncio
import uuid

import aiohttp

from tests.stack.chat_client import TIMEOUT, ChatUser, register
from tests.stack.own_server import ServerProcess
from tests.stack.running_stack import RunningStack


async def test_sigterm_sends_clients_to_reconnect_and_no_reply_is_lost(
    own_stack: RunningStack, own_server: ServerProcess, http: aiohttp.ClientSession, bob: ChatUser
) -> None:
    gate = uuid.uuid4().hex
    async with bob.connect() as device:
        ack = await device.say(f"GATE {gate} 1 2")
        await own_stack.at_gate(http, gate)
        own_server.terminate()
        async with asyncio.timeout(TIMEOUT):
            while not device.socket.closed:
                await asyncio.sleep(0.1)
        assert device.socket.close_code == 1012
    await own_stack.open_gate(http, gate)
    assert await own_server.stopped() == 0
    await own_server.restart()
    turn = await bob.ended(ack["turn_id"])
    assert (turn["status"], turn["message"]["content"]) == ("completed", "w0 w1 w2")
    assert len(await own_stack.model_log(http, gate)) == 1


async def test_the_log_holds_neither_words_nor_secrets(stack: RunningStack, http: aiohttp.ClientSession) -> None:
    ada = await register(http, stack.url, name="Ada-of-the-log")
    said = uuid.uuid4().hex
    turn = await ada.say(f"ECHO {said}")
    async with http.post(f"{stack.url}/api/v1/chat/ticket", headers=ada.headers) as response:
        ticket = (await response.json())["ticket"]
    async with http.get(f"{stack.url}/api/v1/chat/events", params={"ticket": ticket}) as response:
        assert response.status == 200
    await http.post(f"{stack.url}/api/v1/auth/login", json={"email": ada.email, "password": "wrong-Passw0rd"})
    log = (stack.data_dir / "logs" / "server.log").read_text(encoding="utf-8")
    assert turn["id"] in log
    assert "auth.sign_in_failed" in log
    for secret in (said, ada.access_token, ada.refresh_token, ada.password, "wrong-Passw0rd", ticket, ada.email):
        assert secret not in log
    for name in ("SUPABASE_SERVICE_KEY", "LETTA_API_TOKEN", "LITELLM_MASTER_KEY", "SECRET_KEY"):
        assert stack.env[name] not in log
    assert "sk-" not in log
