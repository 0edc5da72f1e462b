"""A service behind a redirect, or an address with a superfluous path: the address to set is named."""

from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from server.doctor.addresses import LETTA, LITELLM, SUPABASE, Place, located, right_address
from server.doctor.findings import Check, examine, fail, ok
from server.resilience import ServiceError

ANSWERS: dict[Place, tuple[int, object]] = {
    LITELLM: (200, "I'm alive!"),
    LETTA: (200, {"version": "0.16.8", "status": "ok"}),
    SUPABASE: (401, {"message": "No API key found in request"}),
}
PLACES = pytest.mark.parametrize("place", list(ANSWERS), ids=lambda place: place.setting)


async def service(request: web.Request) -> web.StreamResponse:
    """A server with all three services at / and under /behind; /old, /moved and /loop redirect like proxies."""
    path = request.path.removeprefix("/behind")
    if path.startswith(("/old/", "/moved/")):
        _, kind, rest = path.split("/", 2)
        address = f"/{rest}" if kind == "old" else f"{request.scheme}://{request.host}/behind/{rest}"
        return web.Response(status=301 if kind == "old" else 308, headers={"Location": address})
    if path.startswith("/loop/"):
        return web.Response(status=302, headers={"Location": request.path})
    for place, (status, body) in ANSWERS.items():
        if path.rstrip("/") == place.path.rstrip("/"):
            return web.json_response(body, status=status)
    return web.Response(status=404, text="<html>not here</html>", content_type="text/html")


@pytest.fixture
async def base() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service)
    async with TestServer(app) as server:
        yield str(server.make_url("/")).rstrip("/")


@PLACES
@pytest.mark.parametrize(
    ("configured", "right"),
    [("/old", ""), ("/moved", "/behind"), ("/ui", ""), ("/a/b/", ""), ("/behind/ui/login", "/behind")],
)
async def test_the_right_address_is_found(place: Place, base: str, configured: str, right: str) -> None:
    async with httpx.AsyncClient() as http:
        assert await right_address(place, base + configured, http) == base + right


@PLACES
@pytest.mark.parametrize("configured", ["", "/", "/behind"])
async def test_no_other_address_is_named_if_the_service_responds(place: Place, base: str, configured: str) -> None:
    async with httpx.AsyncClient() as http:
        assert await right_address(place, base + configured, http) is None


async def test_another_program_or_an_endless_redirect_is_not_named(base: str) -> None:
    other = Place("X_URL", "/nothing/of/ours", lambda response: response.is_success)
    async with httpx.AsyncClient() as http:
        assert await right_address(other, f"{base}/loop", http) is None
        assert await right_address(LETTA, "http://127.0.0.1:9", http) is None


@pytest.mark.parametrize("broken", [True, False])
async def test_a_failed_check_names_the_address_to_set(base: str, broken: bool) -> None:
    async def run() -> object:
        if broken:
            raise ServiceError("what answers there (301) is not LiteLLM")
        return fail("not supported", "Deploy another.")

    async with httpx.AsyncClient() as http:
        check = located(Check("litellm", "alive", run), LITELLM, f"{base}/old/", http)  # type: ignore[arg-type]
        (found,) = await examine([check])
    assert (found.finding.level, found.finding.remedy) == ("fail", f"Set LITELLM_BASE_URL to {base}.")


async def test_a_failed_check_at_the_right_address_has_its_own_message(base: str) -> None:
    async def down() -> object:
        raise ServiceError("LiteLLM did not answer: ClientConnectorError")

    async def well() -> object:
        return ok("LiteLLM answers")

    async with httpx.AsyncClient() as http:
        for run, says in ((down, "LiteLLM did not answer: ClientConnectorError"), (well, "LiteLLM answers")):
            (found,) = await examine([located(Check("litellm", "alive", run), LITELLM, base, http)])  # type: ignore[arg-type]
            assert found.finding.message == says
