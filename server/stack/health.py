"""Health check of a service on this machine. Uses loopback only, never a proxy."""

from collections.abc import Mapping

import httpx


async def responds(url: str, headers: Mapping[str, str] | None = None) -> bool:
    """Whether a GET returns 200 within two seconds."""
    try:
        async with httpx.AsyncClient(verify=False, trust_env=False, timeout=2) as client:  # noqa: S501 - plain http
            return (await client.get(url, headers=headers)).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
