"""Converts JSON rows of our SQL functions and of PostgREST to the core's types."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from server.ports import Account, ApiKey, Forgotten
from server.protocol.codes import ErrorCode
from server.protocol.shapes import AgentStatus, Message, Turn, TurnError, TurnStatus, Usage

Row = dict[str, Any]


def is_uuid(text: str) -> bool:
    """Whether PostgreSQL accepts `text` as a uuid. Any other id does not exist."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def time_of(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def time_or_none(text: str | None) -> datetime | None:
    return None if text is None else time_of(text)


def money_or_none(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def message_of(row: Row) -> Message:
    return Message(
        id=row["id"],
        turn_id=row["turn_id"],
        role=row["role"],
        content=row["content"],
        status=row["status"],
        tokens_used=row["tokens_used"],
        cost=money_or_none(row["cost"]),
        created_at=time_of(row["created_at"]),
        position=row["position"],
        steps=tuple(row["steps"] or ()) if "steps" in row and row["role"] == "assistant" else None,
    )


def error_of(row: Row) -> TurnError:
    return TurnError(
        code=ErrorCode(row["code"]),
        message=row["message"],
        retryable=row["retryable"],
        retry_after=row["retry_after"],
        spent=money_or_none(row.get("spent")),
        limit=money_or_none(row.get("limit")),
        resets_at=time_or_none(row.get("resets_at")),
    )


def turn_of(row: Row) -> Turn:
    reply, usage, error = row["message"], row["usage"], row["error"]
    return Turn(
        id=row["id"],
        status=TurnStatus(row["status"]),
        attempt=row["attempt"],
        client_message_id=row["client_message_id"],
        user_message=message_of(row["user_message"]),
        message=None if reply is None else message_of(reply),
        usage=None if usage is None else Usage(**usage),
        cost=money_or_none(row["cost"]),
        cost_status=row["cost_status"],
        error=None if error is None else error_of(error),
        queue_position=row["queue_position"],
        created_at=time_of(row["created_at"]),
        started_at=time_or_none(row["started_at"]),
        finished_at=time_or_none(row["finished_at"]),
        user_id=row["user_id"],
        number=row["number"],
        run_id=row.get("run_id"),
        cancel_requested_at=time_or_none(row.get("cancel_requested_at")),
        reason=row["reason"],
    )


def turns_of(rows: list[Row]) -> tuple[Turn, ...]:
    return tuple(map(turn_of, rows))


def turn_or_none(row: Row | None) -> Turn | None:
    return None if row is None else turn_of(row)


def forgotten_of(rows: list[Row]) -> tuple[Forgotten, ...]:
    return tuple(Forgotten(**row) for row in rows)


def api_key_of(row: Row) -> ApiKey:
    return ApiKey(
        id=row["id"],
        name=row["name"],
        prefix=row["prefix"],
        scopes=frozenset(row["scopes"]),
        created_at=time_of(row["created_at"]),
        expires_at=time_or_none(row["expires_at"]),
        last_used_at=time_or_none(row["last_used_at"]),
    )


def account_of(row: Row) -> Account:
    return Account(
        user_id=row["id"],
        email=row["email"] or "",
        name=row["name"],
        agent_status=AgentStatus(row["agent_status"]),
        status_reason=row["status_reason"],
        encrypted_key=row["litellm_key"],
        customer_ready=row["customer_ready"],
        key_ready=row["key_ready"],
        organization_id=row["letta_organization_id"],
        member_id=row["letta_member_id"],
        tools_ready=row["tools_ready"],
        provider_id=row["letta_provider_id"],
        agent_id=row["letta_agent_id"],
        conversation_id=row["letta_conversation_id"],
        told_name=row["told_name"],
        customer_email=row["customer_email"],
        config_hash=row["config_hash"],
        intent=row["intent"],
        created_at=time_of(row["created_at"]),
        updated_at=time_of(row["updated_at"]),
        plan=row.get("plan"),
        is_admin=row.get("is_admin", False),  # absent where a table's row was read
    )
