"""Users made by operators: by Auth's admin API, or by a sign-up where there is none."""

import pytest

from server.adapters.supabase.client import SupabaseClient
from server.adapters.supabase.user_creation import SupabaseUserCreation
from server.protocol.errors import PlatformError
from tests.unit.adapters.supabase.project import SERVICE, Project
from tests.unit.adapters.supabase.test_identity import PASSWORD, SIGN_UP, USER, refusal

ADMIN_API, CONFIRM = "/auth/v1/admin/users", "/rest/v1/rpc/confirm_user"


@pytest.fixture
def users(client: SupabaseClient) -> SupabaseUserCreation:
    return SupabaseUserCreation(client)


async def test_the_admin_api_makes_a_user_whose_address_is_confirmed(
    project: Project, users: SupabaseUserCreation
) -> None:
    project.answers[ADMIN_API] = (200, USER)
    assert await users.create_user("ann@example.com", PASSWORD, "Ann") == USER["id"]
    [request] = project.seen
    body = await request.json()
    assert (body["email"], body["email_confirm"], body["user_metadata"]) == ("ann@example.com", True, {"name": "Ann"})
    assert request.headers["apikey"] == SERVICE


@pytest.mark.parametrize(
    "answer", [(401, refusal("no_authorization")), (404, refusal("not_found")), (404, "404 Not Found"), (405, "")]
)
async def test_where_there_is_no_admin_api_the_user_is_signed_up_and_confirmed(
    project: Project, users: SupabaseUserCreation, answer: tuple[int, object]
) -> None:
    project.answers[ADMIN_API] = answer
    project.answers[SIGN_UP] = (200, USER)
    project.answers[CONFIRM] = (200, {"outcome": "ok"})
    assert await users.create_user("ann@example.com", PASSWORD, None) == USER["id"]
    assert await project.seen[-1].json() == {"p_user_id": USER["id"]}


async def test_an_address_that_exists_is_refused_however_auth_answers(
    project: Project, users: SupabaseUserCreation
) -> None:
    project.answers[ADMIN_API] = (422, refusal("email_exists"))
    with pytest.raises(PlatformError, match="invalid_request: This e-mail address is registered already"):
        await users.create_user("ann@example.com", PASSWORD, None)
    project.answers[ADMIN_API] = (404, refusal("not_found"))
    project.answers[SIGN_UP] = (422, refusal("user_already_exists"))
    with pytest.raises(PlatformError, match="registered already"):
        await users.create_user("ann@example.com", PASSWORD, None)
    project.answers[SIGN_UP] = (200, USER)
    project.answers[CONFIRM] = (200, {"outcome": "not_found"})
    with pytest.raises(PlatformError, match="registered already"):
        await users.create_user("ann@example.com", PASSWORD, None)


async def test_a_weak_password_and_an_outage_are_told_apart(project: Project, users: SupabaseUserCreation) -> None:
    project.answers[ADMIN_API] = (422, {**refusal("weak_password"), "weak_password": {"reasons": ["length"]}})
    with pytest.raises(PlatformError, match="weak_password"):
        await users.create_user("ann@example.com", PASSWORD, None)
    project.answers[ADMIN_API] = (503, refusal("x"))
    with pytest.raises(PlatformError, match="supabase_unavailable"):
        await users.create_user("ann@example.com", PASSWORD, None)
