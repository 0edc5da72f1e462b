"""Subprotocols of the WebSocket: `chat.v1`, an access token beside it, and other lists."""

import asyncio
import io
import logging
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.unit.streaming.raw import RawSocket
from tests.unit.streaming.server_fixture import StreamingServer
from tests.virtual_time import virtual_time_with_sockets


@virtual_time_with_sockets
async def test_a_token_is_accepted_beside_the_subprotocol() -> None:
    async with StreamingServer() as server:
        user = server.user()
        for offer in (["chat.v1", f"bearer.{server.token(user)}"], [f"bearer.{server.token(user)}", "chat.v1"]):
            async with server.anonymous(protocols=offer) as socket:
                assert (await socket.until("ready"))["user_id"] == user
                assert socket.raw.protocol == "chat.v1"


@virtual_time_with_sockets
async def test_the_subprotocol_without_a_token_allows_the_other_ways_to_authenticate() -> None:
    async with StreamingServer() as server:
        user = server.user()
        async with server.anonymous(protocols=["chat.v1"]) as socket:
            await socket.send("auth", token=server.token(user))
            assert (await socket.until("ready"))["user_id"] == user
        ticket = server.tickets.issue(server.principal(user), "chat").text
        async with server.anonymous({"ticket": ticket}, protocols=["chat.v1", "other"]) as socket:
            await socket.until("ready")
        async with server.anonymous(headers=server.authorization(user)) as socket:
            await socket.until("ready")
            assert socket.raw.protocol is None


@pytest.mark.parametrize(("seconds", "code"), [(-1, 4001), (None, 4500)])
@virtual_time_with_sockets
async def test_a_bad_token_beside_the_subprotocol_is_refused_as_elsewhere(seconds: float | None, code: int) -> None:
    async with StreamingServer() as server:
        token = "forged" if seconds is None else server.token(server.user(), seconds)
        async with server.anonymous(protocols=["chat.v1", f"bearer.{token}"]) as socket:
            assert (await socket.closed())[0] == code
            assert socket.raw.protocol == "chat.v1"
            assert socket.seen[0]["code"] in ("token_expired", "unauthorized")


@pytest.mark.parametrize("offer", [["x"], ["graphql-ws", "mqtt"], ["CHAT.V1"], ["chat.v2"], ["x", "bearer.{token}"]])
@virtual_time_with_sockets
async def test_any_other_list_selects_its_first_name_and_is_refused(offer: list[str]) -> None:
    async with StreamingServer() as server:
        offer = [name.format(token=server.token(server.user())) for name in offer]
        async with server.anonymous(protocols=offer) as socket:
            assert await socket.closed() == (4501, "protocol_error")
            assert socket.raw.protocol == offer[0]
            assert [frame["code"] for frame in socket.seen] == ["invalid_request"]
            assert "chat.v1" in socket.seen[0]["message"]


@pytest.mark.parametrize("header", ["", ",", " , ", "chat.v1,", "chat.v1", "x\r\nSec-WebSocket-Protocol: {bearer}"])
@virtual_time_with_sockets
async def test_odd_lists_are_refused_and_no_token_is_logged(header: str) -> None:
    """aiohttp logs a warning with the whole list if it supports none of its names."""
    async with StreamingServer() as server:
        bearer, output = f"bearer.{server.token(server.user())}", io.StringIO()
        handler = logging.StreamHandler(output)
        logging.getLogger().addHandler(handler)
        try:
            with capture_logs() as lines:
                async with RawSocket.handshake(server, header.format(bearer=bearer)) as raw:
                    await asyncio.wait_for(raw.close_code(), 60)
        finally:
            logging.getLogger().removeHandler(handler)
        assert bearer not in output.getvalue() + str(lines)


@virtual_time_with_sockets
async def test_no_list_has_its_token_logged() -> None:
    async with StreamingServer() as server:
        token, logged = server.token(server.user()), io.StringIO()
        handler = logging.StreamHandler(logged)
        logging.getLogger().addHandler(handler)
        offers: list[list[str]] = [[f"bearer.{token}"], ["chat.v1", f"bearer.{token}"], ["x", f"bearer.{token}"]]
        options: list[dict[str, Any]] = [{"protocols": offer} for offer in offers]
        try:
            with capture_logs() as lines:
                for option in options:
                    async with server.anonymous(**option) as socket:
                        await socket.until("ready", "error")
        finally:
            logging.getLogger().removeHandler(handler)
        assert token not in logged.getvalue() + str(lines)


@virtual_time_with_sockets
async def test_a_list_that_is_not_ascii_is_refused_before_the_upgrade() -> None:
    async with StreamingServer() as server:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
            async with server.anonymous(headers={"Sec-WebSocket-Protocol": "chat.v1, ж"}):
                pass
        assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("claims", "code"), [({"aal": "aal1"}, "mfa_required"), ({"is_anonymous": True}, "anonymous_not_allowed")]
)
@virtual_time_with_sockets
async def test_a_user_who_may_not_come_reads_why_and_does_not_reconnect(claims: dict[str, Any], code: str) -> None:
    async with StreamingServer() as server:
        server.authenticator._requires_aal2 = code == "mfa_required"
        token = server.token(server.user())
        server.verifier.principals[token] = replace(server.verifier.principals[token], **claims)
        async with server.anonymous(protocols=["chat.v1", f"bearer.{token}"]) as socket:
            assert await socket.closed() == (4500, "unauthorized")
            assert [frame["code"] for frame in socket.seen] == [code]
