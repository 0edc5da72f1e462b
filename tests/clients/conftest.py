"""The clients, built once per run."""

from collections.abc import AsyncIterator

import pytest

from tests.clients.js_package import JsPackage, js_package
from tests.clients.python_package import PythonPackage


@pytest.fixture(scope="session")
async def js(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[JsPackage]:
    async with js_package(tmp_path_factory.mktemp("clients")) as package:
        yield package


@pytest.fixture(scope="session")
def python() -> PythonPackage:
    return PythonPackage()
