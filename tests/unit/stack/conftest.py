"""A separate data directory for each test."""

from pathlib import Path

import pytest

from server.stack.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.open(tmp_path / "data", api_port=8080, environ={"PATH": "/usr/bin:/bin"})
