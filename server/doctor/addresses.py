"""Finds the right address of a service if the configured one redirects or has a superfluous path."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

import httpx

from server.doctor.findings import Check, fail
from server.ports import Finding
from server.protocol.errors import PlatformError
from server.resilience import ServiceError

ASK_SECONDS: Final = 5.0
MOST_REDIRECTS: Final = 5
_MOVED: Final = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Place:
    """How a service is recognized: `is_answer` accepts its response at `path`, requested without a key."""

    setting: str
    path: str
    is_answer: Callable[[httpx.Response], bool]


def _object(response: httpx.Response) -> Mapping[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


LITELLM: Final = Place(
    "LITELLM_BASE_URL", "/health/liveliness", lambda answer: answer.is_success and "alive" in answer.text[:100]
)
LETTA: Final = Place("LETTA_BASE_URL", "/v1/health/", lambda answer: answer.is_success and "version" in _object(answer))
SUPABASE: Final = Place(
    "SUPABASE_URL",
    "/auth/v1/settings",
    lambda answer: "external" in _object(answer) or (answer.status_code == 401 and "message" in _object(answer)),
)


def located(check: Check, place: Place, url: str, http: httpx.AsyncClient) -> Check:
    """Extend the check that a service responds at `url`: if it fails, name another address at which the service
    does."""

    async def run() -> Finding:
        why: str | None = None
        try:
            finding = await check.run()
            if finding.level != "fail":
                return finding
        except (ServiceError, PlatformError, TimeoutError) as error:
            finding, why = None, str(error)
        address = await right_address(place, url, http)
        if address is not None:
            return fail(f"{url} is not where this service answers", f"Set {place.setting} to {address}.")
        if finding is not None:
            return finding
        raise ServiceError(why or "no answer in time")

    return Check(check.service, check.name, run, check.essential)


async def right_address(place: Place, url: str, http: httpx.AsyncClient) -> str | None:
    """Another address at which the service responds: the target of redirects, or `url` with a shorter path."""
    for candidate in _with_less_path(url):
        found = await _follow(place, candidate, http)
        if found is not None:
            return None if found.rstrip("/") == url.rstrip("/") else found
    return None


def _with_less_path(url: str) -> Iterator[str]:
    url = url.rstrip("/")
    yield url
    while urlsplit(url).path:
        url = url.rpartition("/")[0]
        yield url


async def _follow(place: Place, base: str, http: httpx.AsyncClient) -> str | None:
    """The service's address after redirects; None if its path does not respond as expected."""
    asked = base + place.path
    for _ in range(MOST_REDIRECTS):
        try:
            response = await http.get(asked, timeout=ASK_SECONDS, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL):
            return None
        if response.status_code not in _MOVED:
            return _base_of(asked, place.path) if place.is_answer(response) else None
        asked = urljoin(asked, response.headers.get("Location", ""))
    return None


def _base_of(asked: str, path: str) -> str | None:
    """`asked` without the service's path; a redirect may have added or removed a slash."""
    parts = urlsplit(asked)
    if parts.query or parts.username or not parts.path.rstrip("/").endswith(path.rstrip("/")):
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix(path.rstrip('/'))}"
