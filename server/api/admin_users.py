"""Users, as operators manage them. Each handler is a use case of `AdminService`, which `chat users` calls as well."""

from typing import Final
from uuid import UUID

from aiohttp import web

from server.admin.service import PlanChange
from server.api import admin_schemas, schemas
from server.api.admin_models import BlockUser, ChangePlan, CreateUser, RotateKey, SetAdmin, UsersQuery
from server.api.export_stream import send_export
from server.api.usage_shapes import budget_shape, spending_shape
from server.http.app_keys import ADMIN, CLIENT_ADDRESSES, CONNECTIONS, NOW
from server.http.responses import json_response
from server.http.routes import Reply, Route
from server.ports import Account, AccountFilter, AccountSpending, Actor, Plan, Principal
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus, Json, wire_money, wire_time


async def users(request: web.Request, query: UsersQuery) -> web.Response:
    """Search users by id or part of the e-mail address, and by status."""
    wanted = AccountFilter(query.query, query.status and AgentStatus(query.status), query.admins)
    after = None if query.after is None else str(query.after)
    found, has_more = await request.app[ADMIN].search(wanted, after, query.limit)
    next_cursor = found[-1].account.user_id if has_more else None
    return json_response({"data": list(map(_listed_shape, found)), "has_more": has_more, "next_cursor": next_cursor})


async def create(request: web.Request, principal: Principal, body: CreateUser) -> web.Response:
    """Create a user with a confirmed address, whether or not registration is open. The agent is made in the
    background."""
    actor = actor_of(request, principal)
    account = await request.app[ADMIN].create_user(actor, body.email, body.password, body.name, body.plan)
    return json_response(user_shape(account), status=201)


async def user(request: web.Request, user_id: UUID) -> web.Response:
    """One user with plan, budget, spending, connections and last errors."""
    admin = request.app[ADMIN]
    found = await admin.details(str(user_id))
    plan = await admin.plan(found.account)
    connections = await request.app[CONNECTIONS].of_user(found.account.user_id)
    return json_response(
        {
            **user_shape(found.account),
            "limits": None if plan is None else plan_shape(plan),
            "budget": budget_shape(found.standing),
            "total": spending_shape(found.total),
            "open_turns": found.open_turns,
            "connections": len(connections),
            "last_message_at": wire_time(found.last_message_at),
            "errors": [
                {"turn_id": error.turn_id, "at": wire_time(error.at), "code": error.code, "message": error.message}
                for error in found.errors
            ],
        }
    )


async def change_plan(request: web.Request, principal: Principal, user_id: UUID, body: ChangePlan) -> web.Response:
    """Give the user a named plan, or change single fields; from the next model call on. Spending is kept."""
    admin, actor = request.app[ADMIN], actor_of(request, principal)
    if body.name is not None:
        return json_response(_change_shape(await admin.set_plan(actor, str(user_id), body.name)))
    return json_response(_change_shape(await admin.change_plan(actor, str(user_id), body.fields())))


async def block(request: web.Request, principal: Principal, user_id: UUID, body: BlockUser) -> web.Response:
    """Close the account: its connections end on every instance, its turns are cancelled, its tokens are refused."""
    account = await request.app[ADMIN].block(actor_of(request, principal), str(user_id), body.reason)
    return json_response(user_shape(account))


async def unblock(request: web.Request, principal: Principal, user_id: UUID) -> web.Response:
    return json_response(user_shape(await request.app[ADMIN].unblock(actor_of(request, principal), str(user_id))))


async def set_admin(request: web.Request, principal: Principal, user_id: UUID, body: SetAdmin) -> web.Response:
    """Make the user an operator, or no longer one; effective at once."""
    await request.app[ADMIN].set_admin(actor_of(request, principal), str(user_id), body.is_admin)
    return web.Response(status=204)


async def rotate_key(request: web.Request, principal: Principal, user_id: UUID, body: RotateKey) -> web.Response:
    """Give the user a new key for model calls. The old one ends in ten minutes, or at once."""
    await request.app[ADMIN].rotate_key(actor_of(request, principal), str(user_id), at_once=body.at_once)
    return web.Response(status=204)


async def repair(request: web.Request, principal: Principal, user_id: UUID) -> web.Response:
    """Repeat every step of the user's provisioning; what is missing is made again."""
    admin = request.app[ADMIN]
    await admin.repair(actor_of(request, principal), str(user_id))
    return json_response(user_shape((await admin.details(str(user_id))).account))


async def delete(request: web.Request, principal: Principal, user_id: UUID) -> web.Response:
    """Delete the user with everything that belongs to them, which cannot be undone."""
    actor = actor_of(request, principal)
    is_complete = await request.app[ADMIN].delete(actor, str(user_id), timeout=_DELETION_SECONDS)
    return web.Response(status=204) if is_complete else json_response({"status": "deleting"}, 202)


async def export(request: web.Request, principal: Principal, user_id: UUID) -> web.StreamResponse:
    """Everything that is stored about the user, as `user/export` has it."""
    exported_at = str(wire_time(request.app[NOW]()))
    pieces = request.app[ADMIN].export(actor_of(request, principal), str(user_id), exported_at)
    return await send_export(request, str(user_id), pieces)


async def plans(request: web.Request) -> web.Response:
    """The named plans of the settings."""
    known = request.app[ADMIN].plans
    shapes = {name: plan_shape(plan) for name, plan in known.named.items()}
    return json_response({"default": known.default, "plans": shapes})


def actor_of(request: web.Request, principal: Principal) -> Actor:
    """Who acts, for the record."""
    return Actor(principal.user_id, request.app[CLIENT_ADDRESSES].of(request))


def user_shape(account: Account) -> Json:
    return {
        **account.user.wire(),
        "status_reason": account.status_reason,
        "is_admin": account.is_admin,
        "plan": account.plan,
        "agent_id": account.agent_id,
        "updated_at": wire_time(account.updated_at),
    }


def _listed_shape(found: AccountSpending) -> Json:
    return {
        **user_shape(found.account),
        "budget": budget_shape(found.standing),
        "total": spending_shape(found.total),
    }


def plan_shape(plan: Plan) -> Json:
    return {
        "budget": wire_money(plan.budget),
        "period": plan.period,
        "tokens_per_minute": plan.tokens_per_minute,
        "requests_per_minute": plan.requests_per_minute,
        "models": list(plan.models),
    }


def _change_shape(change: PlanChange) -> Json:
    return {
        "plan": change.account.plan,
        "limits": plan_shape(change.plan),
        "spent": None if change.budget is None else wire_money(change.budget.spent),
        "resets_at": None if change.budget is None else wire_time(change.budget.resets_at),
    }


_DELETION_SECONDS: Final = 25.0
"""How long a request waits for a deletion to be complete. The rest is done in the background."""
_USER: Final = Reply("The user.", admin_schemas.AdminUser)
_UNKNOWN: Final = (ErrorCode.NOT_FOUND,)
_REMOVING: Final = (ErrorCode.NOT_FOUND, ErrorCode.LAST_ADMIN)
_PROVISIONING: Final = (
    ErrorCode.NOT_FOUND,
    ErrorCode.AGENT_UNAVAILABLE,
    ErrorCode.LETTA_UNAVAILABLE,
    ErrorCode.LITELLM_UNAVAILABLE,
    ErrorCode.DRAINING,
)
_ONE: Final = "/api/v1/admin/users/{user_id}"

ROUTES = (
    Route(
        "GET",
        "/api/v1/admin/users",
        "admin",
        users,
        "admin",
        "Search users",
        {200: Reply("A page of users.", admin_schemas.AdminUsers)},
    ),
    Route(
        "POST",
        "/api/v1/admin/users",
        "admin",
        create,
        "admin",
        "Create a user",
        {201: _USER},
        errors=(ErrorCode.WEAK_PASSWORD,),
    ),
    Route(
        "GET",
        _ONE,
        "admin",
        user,
        "admin",
        "One user",
        {200: Reply("The user.", admin_schemas.AdminUserDetails)},
        errors=_UNKNOWN,
    ),
    Route(
        "PATCH",
        f"{_ONE}/plan",
        "admin",
        change_plan,
        "admin",
        "Change a user's plan or budget",
        {200: Reply("The plan.", admin_schemas.AdminPlan)},
        errors=(ErrorCode.NOT_FOUND, ErrorCode.LITELLM_UNAVAILABLE),
    ),
    Route("POST", f"{_ONE}/block", "admin", block, "admin", "BlockUser a user", {200: _USER}, errors=_REMOVING),
    Route("POST", f"{_ONE}/unblock", "admin", unblock, "admin", "Unblock a user", {200: _USER}, errors=_UNKNOWN),
    Route(
        "POST",
        f"{_ONE}/admin",
        "admin",
        set_admin,
        "admin",
        "Make a user an operator, or no longer one",
        {204: Reply("Done.")},
        errors=_REMOVING,
    ),
    Route(
        "POST",
        f"{_ONE}/rotate-key",
        "admin",
        rotate_key,
        "admin",
        "Rotate a user's key",
        {204: Reply("The new key is in use.")},
        errors=_PROVISIONING,
    ),
    Route("POST", f"{_ONE}/repair", "admin", repair, "admin", "Repair a user", {200: _USER}, errors=_PROVISIONING),
    Route(
        "DELETE",
        _ONE,
        "admin",
        delete,
        "admin",
        "Delete a user",
        {
            204: Reply("The user is deleted."),
            202: Reply("The account is closed, and the rest is deleted in the background.", schemas.Deleting),
        },
        errors=_REMOVING,
    ),
    Route(
        "GET",
        f"{_ONE}/export",
        "admin",
        export,
        "admin",
        "Export everything that is stored about a user",
        {200: Reply("The document.", media="application/json")},
        errors=(ErrorCode.NOT_FOUND, ErrorCode.AGENT_UNAVAILABLE, ErrorCode.LETTA_UNAVAILABLE),
    ),
    Route(
        "GET",
        "/api/v1/admin/plans",
        "admin",
        plans,
        "admin",
        "The named plans",
        {200: Reply("The plans.", admin_schemas.Plans)},
    ),
)
