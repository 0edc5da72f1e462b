"""What the server tells a page before anybody has signed in."""

from server import __version__
from server.auth.gate import AccountGate, Registration
from tests.unit.api.world import World


async def test_in_production_a_page_learns_what_it_needs_and_no_user(world: World) -> None:
    answer = await world.visitor.get("/api/v1/about")
    assert answer.json == {
        "version": __version__,
        "environment": "production",
        "model": {"name": "gpt-4", "is_demo": False},
        "sign_up": {"is_open": True, "domains": None, "allows_anonymous": False},
        "demo_user": None,
    }


async def test_it_says_who_may_register() -> None:
    cases: list[tuple[Registration, bool, list[str] | None]] = [
        ("closed", False, None),
        (("example.com", "example.org"), True, ["example.com", "example.org"]),
    ]
    for registration, is_open, domains in cases:
        async with World(gate=AccountGate(registration, anonymous_allowed=True)).serving() as world:
            sign_up = (await world.visitor.get("/api/v1/about")).json["sign_up"]
            assert sign_up == {"is_open": is_open, "domains": domains, "allows_anonymous": True}


async def test_the_demo_user_registers_and_signs_in_like_any_other() -> None:
    async with World(environment="development", demo_user="demo@example.com:Demo-user-1").serving() as world:
        about = (await world.visitor.get("/api/v1/about")).json
        assert (about["environment"], about["model"]["is_demo"]) == ("development", True)
        demo = about["demo_user"]
        assert demo == {"email": "demo@example.com", "password": "Demo-user-1"}
        assert (await world.visitor.post("/api/v1/auth/login", demo)).status == 401
        registered = await world.visitor.post("/api/v1/auth/register", demo)
        signed_in = await world.visitor.post("/api/v1/auth/login", demo)
        assert (registered.status, signed_in.status) == (201, 200)
        assert signed_in.json["user"]["id"] == registered.json["user"]["id"]


async def test_it_needs_no_service(world: World) -> None:
    world.letta.error = world.supabase.error = ConnectionError()
    assert (await world.visitor.get("/api/v1/about")).status == 200
    assert (world.letta.pings, world.supabase.pings) == (0, 0)
