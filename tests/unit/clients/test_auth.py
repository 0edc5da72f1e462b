"""Sign-in of the client, where what answers is not this server."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from ai_chat_client.auth import KEY, Auth
from ai_chat_client.errors import ChatError


@pytest.mark.parametrize("body", ["<html>Accept our terms", '{"access_token": "a'])
async def test_an_answer_that_is_no_json_signs_nobody_out(body: str) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(text=body, content_type="application/json")

    expires_at = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
    session = {"access_token": "a", "refresh_token": "r", "expires_at": expires_at, "user": {"id": "ann"}}
    storage = {KEY: json.dumps(session)}
    async with RawTestServer(answer) as server:
        auth = Auth(str(server.make_url("/")), storage)
        for asked in (auth.get_token(), auth.sign_in("ann@example.com", "secret")):
            with pytest.raises(ChatError) as raised:
                await asked
            assert (raised.value.code, raised.value.retryable) == ("network", True)
    assert json.loads(storage[KEY]) == session
