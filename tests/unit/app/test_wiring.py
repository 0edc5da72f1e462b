"""What the settings make of the application, before anything is opened."""

from collections.abc import Sequence

import pytest
from aiohttp import web

from server.api.console import CONSOLE, read_build
from server.app.wiring import create_app
from server.ports import Diagnosis
from tests.unit.config.test_settings import settings

PRODUCTION = {"environment": "production", "secret_key": "0123456789abcdef" * 2}


async def nothing_found() -> Sequence[Diagnosis]:
    return []


def app_of(**given: str) -> web.Application:
    return create_app(settings(**given), nothing_found)


def paths(app: web.Application) -> set[str]:
    return {resource.canonical for resource in app.router.resources()}


def test_the_console_is_served_unless_it_is_off() -> None:
    assert app_of()[CONSOLE].keys() == read_build().keys()
    off = app_of(console="off")
    assert off[CONSOLE] == {}
    assert not {"/sw.js", "/assets/{name}", "/manifest.webmanifest"} & paths(off)
    assert "/" in paths(off)


@pytest.mark.parametrize(("environment", "exist"), [({}, True), ({"environment": "test"}, True), (PRODUCTION, False)])
def test_faults_on_purpose_have_routes_in_development_alone(environment: dict[str, str], exist: bool) -> None:
    assert any(path.startswith("/api/v1/development/") for path in paths(app_of(**environment))) is exist
