"""Validation of the settings' values. Pure; errors name the mistake and never quote a secret."""

import base64
import json
import re
from collections.abc import Iterable
from typing import Final, Literal
from urllib.parse import urlsplit

KeyKind = Literal["publishable", "secret", "anon", "service_role", "unknown"]

DATABASE_EXAMPLE: Final = "postgresql://USER:PASSWORD@HOST:5432/postgres"
INVISIBLE: Final = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Invisible characters that web pages and editors add to a copied value, and that `str.strip` does not remove."""
_QUOTES: Final = "\"'`"
_NEW_KEYS: Final[tuple[tuple[str, KeyKind], ...]] = (("sb_publishable_", "publishable"), ("sb_secret_", "secret"))
_LEGACY_ROLES: Final[dict[object, KeyKind]] = {"anon": "anon", "service_role": "service_role"}
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_.])?)(?::([0-9]{1,5}))?")
_DOMAIN: Final = re.compile(r"(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_ENCODED: Final = re.compile(r"%(?!00)[0-9A-Fa-f]{2}")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_STANDARD_PORTS: Final = {"http": 80, "https": 443}
_API_PATH: Final = re.compile(r"(/rest|/auth)?/v1/?$")
"""Paths that the documentation of services shows behind their address."""
_OPTION: Final = re.compile(r"[A-Za-z_]+=[^&=]*")


def stripped(value: str) -> str:
    """The value without white space and invisible characters around it."""
    return re.sub(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+$", "", value)


def check_text(value: str) -> None:
    """Check any setting: one line, not in quotes. Raises ValueError."""
    if any(not character.isprintable() for character in value):
        raise ValueError("holds a line break or another character that cannot be seen; copy the value again")
    if len(value) > 1 and value[0] == value[-1] and value[0] in _QUOTES:
        raise ValueError("stands in quotes, which would count as a part of it; remove them")


def check_credential(value: str) -> None:
    """Check a value that is sent in a header: visible ASCII characters. Raises ValueError."""
    if not all("!" <= character <= "~" for character in value):
        raise ValueError("holds a space or a character that is not ASCII, as a key never does; copy it again")


def key_kind(key: str) -> KeyKind:
    """The kind of a Supabase API key: by the prefix of a new key, by the role in a legacy one."""
    for prefix, kind in _NEW_KEYS:
        if key.startswith(prefix):
            return kind
    return _LEGACY_ROLES.get((_claims(key) or {}).get("role"), "unknown")


def check_supabase_key(value: str, *, private: bool) -> None:
    """Check that the key is not of the wrong kind. `private`: the secret key is expected. Raises ValueError."""
    check_credential(value)
    kind = key_kind(value)
    wanted = "the secret key (sb_secret_…, or the legacy service_role key)"
    if not private:
        wanted = "the publishable key (sb_publishable_…, or the legacy anon key)"
    if kind in (("publishable", "anon") if private else ("secret", "service_role")):
        harm = "" if private else ", with which users' reads would pass row level security"
        raise ValueError(f"is the {kind} key{harm}; set it to {wanted}")
    if kind == "unknown" and _claims(value) is None:
        raise ValueError(f"is no API key of Supabase; set it to {wanted}")


def check_base_url(url: str) -> None:
    """Check a service's URL: only scheme, host, port and an optional path. Raises ValueError."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password")
    if parts.query or parts.fragment:
        raise ValueError("must end with the host or a path, without ? and #")
    if over := _API_PATH.search(parts.path):
        raise ValueError(f"must be {url[: -len(over[0])]}: {over[0].rstrip('/')} is added to it")


def check_database_url(value: str) -> None:
    """`postgresql://…`. Raises ValueError."""
    _check_connection_url(value, ("postgresql", "postgres"), DATABASE_EXAMPLE)
    if "@" not in value:
        raise ValueError(f"names no user; it must look like {DATABASE_EXAMPLE}")


def check_redis_url(value: str) -> None:
    """`redis://…` or `rediss://…`. Raises ValueError."""
    _check_connection_url(value, ("redis", "rediss"), "redis://:PASSWORD@HOST:6379/0")


def _check_connection_url(value: str, schemes: Iterable[str], example: str) -> None:
    """Check the URL of a database: `scheme://user:password@host:port/name?option=…`. Its password must be encoded, so
    that no parser takes a part of it for another field and quotes it. Raises ValueError."""
    check_credential(value)
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in schemes:
        raise ValueError(f"must look like {example}")
    account, has_account, place = rest.rpartition("@")
    if has_account and not _is_encoded(account):
        raise ValueError("has a user name or password with a character that must be written as %xx: @ as %40, / as %2F")
    host, _, tail = place.partition("/")
    host, _, options = f"{host}/{tail}".partition("?")
    host, _, name = host.partition("/")
    found = _HOST.fullmatch(host)
    if found is None or not 0 < int(found[2] or 1) <= 65535:
        raise ValueError(f"has no host, or a port that is no number; it must look like {example}")
    if not _is_encoded(name) or "#" in place:
        raise ValueError(f"has a name after the host that cannot be read; it must look like {example}")
    if options and not all(_OPTION.fullmatch(option) and _is_encoded(option) for option in options.split("&")):
        raise ValueError("has options after the ? that cannot be read")


def origins(listed: str) -> tuple[str, ...]:
    """The web origins in a comma-separated list, in the form of browsers. Raises ValueError naming an invalid one."""
    return tuple(map(_origin, filter(None, map(stripped, listed.split(",")))))


def registration(listed: str) -> str | tuple[str, ...]:
    """`open`, `closed`, or the mail domains in a comma-separated list, in lower case. Raises ValueError."""
    names = tuple(stripped(name).lower().removeprefix("@") for name in listed.split(",") if stripped(name))
    if names in (("open",), ("closed",)):
        return names[0]
    for name in names:
        if not _DOMAIN.fullmatch(name):
            raise ValueError(f"{name} is no mail domain; write open, closed, or domains such as example.com")
    return names


def similar_names(given: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """(given, known) for each given name that differs from a known one by one letter: replaced, missing, added or
    swapped."""
    exact = {name.upper() for name in known}
    others = sorted({name.upper() for name in given} - exact)
    return [(other, name) for other in others for name in sorted(exact) if _differs_once(other, name)]


def _claims(key: str) -> dict[str, object] | None:
    """The claims of a JWT, not verified; None if the key is not a JWT."""
    parts = key.split(".")
    if len(parts) != 3:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _is_encoded(text: str) -> bool:
    """Whether all characters that delimit parts of a URL are written as %xx."""
    return not any(character in '@/?#[]%\\<>^`{|}"' for character in _ENCODED.sub("", text))


def _origin(text: str) -> str:
    if text in ("*", "null"):
        return text
    scheme, separator, rest = text.rstrip("/").partition("://")
    host = rest if separator else scheme
    bare = re.split(r"[/?#]", host)[0].rpartition("@")[2]
    found = _HOST.fullmatch(host)
    if not separator or found is None or not _SCHEME.fullmatch(scheme):
        scheme = scheme if separator and _SCHEME.fullmatch(scheme) else "https"
        example = f"{scheme}://{bare}" if _HOST.fullmatch(bare) else "https://app.example.com"
        raise ValueError(f"{text} is no origin as browsers send it; write {example}")
    name, port = found[1].lower(), found[2]
    if port is None or int(port) == _STANDARD_PORTS.get(scheme.lower()):
        return f"{scheme.lower()}://{name}"
    return f"{scheme.lower()}://{name}:{int(port)}"


def _differs_once(one: str, other: str) -> bool:
    """Whether one letter is replaced, missing or added, or two neighbours are swapped."""
    start = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    a, b = one[start:], other[start:]
    swapped = len(a) > 1 and a[:2] == b[1::-1] and a[2:] == b[2:]
    return a[1:] == b[1:] or a[1:] == b or a == b[1:] or swapped
