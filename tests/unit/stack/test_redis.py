"""The choice of the Redis executable, and its configuration."""

from pathlib import Path

import pytest

from server.stack.layout import Layout
from server.stack.redis import Redis


def put_on_path(folder: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = folder / "redis-server"
    program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0 malloc=jemalloc-5.3.0 bits=64'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return program


def test_a_recent_system_redis_is_used(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = put_on_path(tmp_path, "7.0.15", monkeypatch)
    redis = Redis(layout)
    assert redis.installed
    assert redis.command().argv[0] == str(program)


def test_an_old_system_redis_is_not_used(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path, "5.0.7", monkeypatch)
    redis = Redis(layout)
    assert not redis.installed
    assert redis.command().argv[0].startswith(str(layout.root))


async def test_it_listens_on_loopback_and_persists_its_data(layout: Layout) -> None:
    await Redis(layout).prepare()
    settings = (layout.root / "redis" / "redis.conf").read_text().splitlines()
    assert {"bind 127.0.0.1", "appendonly yes", f"port {layout.port('redis')}"} <= set(settings)
