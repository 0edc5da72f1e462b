"""What users may read in the database: every table, view and column of the schema `public`, and nothing to write.

Data only. `test_rls_sql.py` and `test_rls.py` try each row in SQL and through PostgREST, and fail for a table or column
of the database that has no row here.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view of which users read their own rows. `owner`: the column with the user's id."""

    owner: str
    readable: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    is_view: bool = False


READABLE: Final[dict[str, Relation]] = {
    "user_profiles": Relation(
        "id",
        ("id", "email", "name", "agent_status", "status_reason", "letta_agent_id", "created_at", "updated_at"),
        (
            "litellm_key",
            "litellm_key_hash",
            "customer_ready",
            "key_ready",
            "letta_organization_id",
            "letta_member_id",
            "tools_ready",
            "letta_provider_id",
            "letta_conversation_id",
            "config_hash",
            "intent",
            "provisioning_owner",
            "provisioning_fence",
            "provisioning_expires_at",
            "told_name",
            "plan",
            "customer_email",
        ),
    ),
    "profiles": Relation(
        "id",
        ("id", "email", "name", "agent_status", "status_reason", "agent_id", "created_at", "updated_at"),
        is_view=True,
    ),
    "turns": Relation(
        "user_id",
        (
            *("id", "user_id", "number", "client_message_id", "status", "attempt", "cancel_requested_at", "error"),
            *("usage", "cost", "cost_status", "created_at", "started_at", "finished_at", "reason"),
        ),
        ("content_hash", "run_id", "past_run_ids", "carried_by"),
    ),
    "messages": Relation(
        "user_id",
        (
            *("id", "user_id", "role", "content", "tokens_used", "cost", "created_at"),
            *("turn_id", "position", "status", "steps"),
        ),
    ),
    "usage_metrics": Relation(
        "user_id", ("id", "user_id", "date", "total_messages", "total_tokens", "total_cost", "exact_cost")
    ),
    "usage_totals": Relation("user_id", ("user_id", "total_messages", "total_tokens", "total_cost"), is_view=True),
    "ledger": Relation(
        "user_id",
        (
            *("user_id", "turn_id", "attempt", "status", "outcome", "model", "model_calls", "prompt_tokens"),
            *("completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens", "cost", "started_at"),
            *("ended_at", "date", "counted"),
        ),
        ("id", "request_id", "source", "price", "flag", "recorded_at"),
    ),
    "usage_by_model": Relation(
        "user_id",
        (
            *("user_id", "date", "model", "model_calls", "prompt_tokens", "completion_tokens", "cached_tokens"),
            *("reasoning_tokens", "total_tokens", "cost", "background_cost"),
        ),
        is_view=True,
    ),
    "billing_accounts": Relation(
        "user_id",
        ("user_id", "budget_limit", "budget_period", "budget_started_at", "budget_resets_at"),
        ("look_at", "reread_at", "budget_read_at", "warned_level", "warned_period", "housekeeping_read_at"),
    ),
    "api_keys": Relation(
        "user_id",
        ("id", "user_id", "name", "prefix", "scopes", "created_at", "expires_at", "last_used_at"),
        ("secret_hash",),
    ),
    "budget_standings": Relation(
        "user_id", ("user_id", "limit", "spent", "period", "started_at", "resets_at"), is_view=True
    ),
}

HIDDEN: Final = (
    *("sessions", "tickets", "attempts", "model_keys", "known_addresses"),
    "sign_in_devices",
    *("admin_actions", "admin_outcomes", "deleted_usage"),
)
"""Tables of which users read nothing."""

RELATIONS: Final = (*READABLE, *HIDDEN)
