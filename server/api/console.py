"""The console's files: read and compressed once, then served from memory.

They are routes beside those of the API, one per file that the build has, since the API's documents do not describe
them. Without a build, or with CONSOLE=off, there are none, and `/` is a plain page.
"""

import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Final

from aiohttp import ETag, web

from server.http.content_negotiation import accepts_gzip
from server.http.security_headers import CONSOLE_POLICY
from server.protocol.codes import ErrorCode
from server.protocol.errors import PlatformError

_BUILD: Final = "files"
_INDEX: Final = "/index.html"
_ASSETS: Final = "/assets/"
"""The folder of files whose names contain a hash of what they hold."""
_IMMUTABLE: Final = "public, max-age=31536000, immutable"
_MEDIA_TYPES: Final = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".txt": "text/plain",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """One file. `compressed` is its content in gzip, if that is shorter."""

    content: bytes
    compressed: bytes | None
    media_type: str
    cache_control: str
    etag: ETag


CONSOLE: Final = web.AppKey[Mapping[str, BuiltFile]]("console")
"""The files by their paths; set by the wiring."""


def read_build(folder: Traversable | None = None) -> dict[str, BuiltFile]:
    """Read the files below `folder`, by default the package's, as path → file; empty if there is no build."""
    folder = folder or files("server.console") / _BUILD
    found = dict(_read(folder, "/")) if folder.is_dir() else {}
    return found if _INDEX in found else {}


def _read(folder: Traversable, at: str) -> Iterator[tuple[str, BuiltFile]]:
    for entry in folder.iterdir():
        path = at + entry.name
        if entry.is_dir():
            yield from _read(entry, f"{path}/")
        elif not entry.name.startswith("."):
            yield path, _built_file(path, entry.read_bytes())


def _built_file(path: str, content: bytes) -> BuiltFile:
    compressed = gzip.compress(content, mtime=0)
    return BuiltFile(
        content=content,
        compressed=compressed if len(compressed) < len(content) else None,
        media_type=_MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream"),
        cache_control=_IMMUTABLE if path.startswith(_ASSETS) else "no-cache",
        etag=ETag(hashlib.sha256(content).hexdigest()[:32], is_weak=True),  # weak: one for both encodings
    )


def install(app: web.Application) -> None:
    """Add a route for each file of the build, and one for all assets, so that their names are no metric labels."""
    for path in app[CONSOLE]:
        if not path.startswith(_ASSETS):
            app.router.add_get(path, _file)
    if app[CONSOLE]:
        app.router.add_get(_ASSETS + "{name}", _file)


async def _file(request: web.Request) -> web.Response:
    file = request.app[CONSOLE].get(request.path)
    if file is None:
        raise PlatformError(ErrorCode.NOT_FOUND)
    return _respond(request, file)


def index(request: web.Request) -> web.Response | None:
    """The console's page; None if this server has no console."""
    file = request.app[CONSOLE].get(_INDEX)
    return None if file is None else _respond(request, file)


def _respond(request: web.Request, file: BuiltFile) -> web.Response:
    """The file, or 304 if the client has it. Each has the policy of the page, which a service worker needs, too."""
    headers = {
        "Cache-Control": file.cache_control,
        "Content-Security-Policy": CONSOLE_POLICY,
        "Vary": "Accept-Encoding",
    }
    if any(known.value in (file.etag.value, "*") for known in request.if_none_match or ()):
        response = web.Response(status=304, headers=headers)
    elif file.compressed is not None and accepts_gzip(request.headers.get("Accept-Encoding")):
        headers["Content-Encoding"] = "gzip"
        response = web.Response(body=file.compressed, content_type=file.media_type, headers=headers)
    else:
        response = web.Response(body=file.content, content_type=file.media_type, headers=headers)
    if file.media_type.startswith("text/") and response.status == 200:
        response.charset = "utf-8"
    response.etag = file.etag
    return response
