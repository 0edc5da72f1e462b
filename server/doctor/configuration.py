"""Checks of the settings, without services."""

from collections.abc import Sequence

from server.config.settings import MIN_SECRET_LENGTH, Settings
from server.doctor.findings import Check, fail, ok, warn
from server.ports import Finding

SERVICE = "settings"
NEW_SECRET = "python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"  # noqa: S105 - a command


def checks(settings: Settings, misspelt: Sequence[tuple[str, str]] = ()) -> list[Check]:
    """`misspelt`: pairs of an unknown variable and the setting that may be meant."""

    async def names() -> Finding:
        return judge_names(misspelt)

    async def secret_key() -> Finding:
        return judge_secret(settings.secret_key.get_secret_value(), strict=settings.is_production)

    async def rotation() -> Finding:
        previous = settings.secret_key_previous
        if previous is None:
            return ok("no change of SECRET_KEY is under way")
        if previous == settings.secret_key:
            return warn("SECRET_KEY_PREVIOUS is SECRET_KEY itself", "Empty SECRET_KEY_PREVIOUS.")
        return ok("SECRET_KEY is being changed: the previous one is still read")

    return [
        Check(SERVICE, "names", names),
        Check(SERVICE, "secret_key", secret_key),
        Check(SERVICE, "rotation", rotation),
    ]


def judge_names(misspelt: Sequence[tuple[str, str]]) -> Finding:
    if not misspelt:
        return ok("no variable looks like a misspelt one")
    pairs = ", ".join(f"{given} (for {known}?)" for given, known in misspelt)
    return warn(f"variables that are not read, and look like ones that are: {pairs}", "Correct their names.")


def judge_secret(secret: str, *, strict: bool) -> Finding:
    """Judge whether the secret is long and varied enough. `strict`: a weak one fails."""
    if len(secret) >= MIN_SECRET_LENGTH and len(set(secret)) >= 10:
        return ok("SECRET_KEY is strong")
    judge = fail if strict else warn
    return judge(f"SECRET_KEY is weak: it should be {MIN_SECRET_LENGTH} random characters or more", f"Run {NEW_SECRET}")
