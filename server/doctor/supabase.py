"""Checks of Supabase: the keys, the schema, the signing of tokens, and the confirmation of e-mail addresses."""

from server.adapters.supabase.database import DatabaseError
from server.adapters.supabase.inspection import SupabaseInspection, pending_migrations
from server.adapters.supabase.issuers import own_issuer
from server.adapters.supabase.migration_files import project_migrations
from server.config.settings import Settings
from server.config.validators import key_kind
from server.doctor.findings import Check, fail, ok, warn
from server.ports import Finding

SERVICE = "supabase"
PUBLIC, PRIVATE = ("publishable", "anon"), ("secret", "service_role")
KEYS_PAGE = "Project Settings, API Keys"


class SupabaseChecks:
    """`all` returns the checks in the order of their dependencies."""

    def __init__(self, settings: Settings, supabase: SupabaseInspection) -> None:
        self._settings = settings
        self._supabase = supabase

    def all(self) -> list[Check]:
        return [
            Check(SERVICE, "reachable", self.reachable, essential=True),
            Check(SERVICE, "anon_key", self.anon_key, essential=True),
            Check(SERVICE, "service_key", self.service_key),
            Check(SERVICE, "migrations", self.migrations),
            Check(SERVICE, "tokens", self.tokens),
            Check(SERVICE, "issuer", self.issuer),
            Check(SERVICE, "confirmation", self.confirmation),
        ]

    async def reachable(self) -> Finding:
        await self._supabase.auth_settings()
        return ok(f"Supabase answers at {self._settings.supabase_url}")

    async def anon_key(self) -> Finding:
        kind = key_kind(self._settings.supabase_anon_key.get_secret_value())
        return judge_anon_key(kind, accepted=await self._supabase.auth_settings() is not None)

    async def service_key(self) -> Finding:
        kind = key_kind(self._settings.supabase_service_key.get_secret_value())
        if kind in PUBLIC:
            return fail(f"SUPABASE_SERVICE_KEY is the {kind} key", f"Set it to the secret key: {KEYS_PAGE}.")
        match await self._supabase.service_access():
            case "granted":
                return ok(f"SUPABASE_SERVICE_KEY works ({kind})")
            case "no_schema":
                return fail("the database has none of our functions", "Run chat migrate.")
            case "refused":
                return fail("Supabase refuses SUPABASE_SERVICE_KEY", f"Copy the secret key again: {KEYS_PAGE}.")

    async def migrations(self) -> Finding:
        if self._settings.supabase_db_url is None:
            return ok("SUPABASE_DB_URL is not set, so the versions of the schema are not compared")
        try:
            pending = await pending_migrations(self._settings.supabase_db_url, project_migrations())
        except DatabaseError as error:
            return fail(
                str(error).rstrip("."), "Copy SUPABASE_DB_URL again: Connect, Session pooler, with the password."
            )
        if pending:
            return fail(f"migrations are missing: {', '.join(pending)}", "Run chat migrate.")
        return ok("the schema is up to date")

    async def tokens(self) -> Finding:
        return judge_tokens(
            await self._supabase.signing_algorithms(), has_secret=self._settings.supabase_jwt_secret is not None
        )

    async def issuer(self) -> Finding:
        return judge_issuer(
            await self._supabase.issuer(),
            own=own_issuer(str(self._settings.supabase_url)),
            configured=self._settings.supabase_jwt_issuer,
        )

    async def confirmation(self) -> Finding:
        found = await self._supabase.auth_settings() or {}
        return judge_confirmation(
            confirms=not found.get("mailer_autoconfirm", False),
            production=self._settings.is_production,
            has_redirect=self._settings.mail_link_url is not None,
        )


def judge_anon_key(kind: str, *, accepted: bool) -> Finding:
    if kind in PRIVATE:
        remedy = f"Set it to the publishable key: {KEYS_PAGE}."
        return fail(f"SUPABASE_ANON_KEY is the {kind} key: users' reads would pass row level security", remedy)
    if not accepted:
        return fail("Supabase refuses SUPABASE_ANON_KEY", f"Copy the publishable key again: {KEYS_PAGE}.")
    return ok(f"SUPABASE_ANON_KEY works ({kind})")


def judge_tokens(algorithms: frozenset[str], *, has_secret: bool) -> Finding:
    if algorithms:
        return ok(f"access tokens are verified here by published keys ({', '.join(sorted(algorithms))})")
    if has_secret:
        remedy = "Rotate to asymmetric signing keys when you can: Project Settings, JWT Keys."
        return warn("access tokens are signed with a shared secret (HS256)", remedy)
    return warn(
        "access tokens can only be verified by asking Supabase about each",
        "Set SUPABASE_JWT_SECRET, or rotate to asymmetric signing keys: Project Settings, JWT Keys.",
    )


def judge_issuer(discovered: str | None, *, own: str, configured: str | None) -> Finding:
    """Judge whether the issuer of the project's tokens is accepted."""
    if discovered is None and configured is None:
        return ok(f"the project does not say who issues its tokens; {own} is expected (else set SUPABASE_JWT_ISSUER)")
    if discovered is None:
        return ok(f"tokens of SUPABASE_JWT_ISSUER are accepted, and of {own}")
    if configured not in (None, discovered):
        remedy = f"Set it to {discovered}, or leave it out: it is discovered."
        return warn(f"SUPABASE_JWT_ISSUER is {configured}, but the project's tokens name {discovered}", remedy)
    if discovered != own:
        return ok(f"tokens are issued by {discovered}, another name than SUPABASE_URL, and accepted")
    return ok(f"tokens are issued by {discovered}")


def judge_confirmation(*, confirms: bool, production: bool, has_redirect: bool) -> Finding:
    if not confirms and production:
        remedy = "Turn on Confirm email: Authentication, Sign In / Providers, Email."
        return warn("anybody can register with anybody's e-mail address: it is not confirmed", remedy)
    if confirms and not has_redirect:
        remedy = "Set PUBLIC_URL to this server's address, and allow its /auth/callback as a redirect at Supabase."
        return warn("e-mail addresses are confirmed, and the link leads to the project's default page", remedy)
    return ok("e-mail addresses are confirmed" if confirms else "e-mail addresses are not confirmed")
