"""How the client's connections write pipelines."""

import pytest
from pydantic import SecretStr
from redis.asyncio import Connection, SSLConnection

from server.adapters.redis.client import RedisClient


@pytest.mark.parametrize(("scheme", "kind"), [("redis", Connection), ("rediss", SSLConnection)])
def test_pipelines_are_packed_as_redis_py_packs_them(scheme: str, kind: type[Connection]) -> None:
    client = RedisClient(SecretStr(f"{scheme}://127.0.0.1:9"))
    commands = [("EVALSHA", "digest", 2, b"key", "schlüssel", -5, b"", "a\r\nb"), ("EXPIRE", b"key", 600)]
    connection = client.redis.connection_pool.connection_class()
    assert isinstance(connection, kind)
    assert b"".join(connection.pack_commands(commands)) == b"".join(Connection().pack_commands(commands))
