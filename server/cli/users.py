"""`chat users`: what operators do. The use cases are in `server.admin`, which the endpoints `admin/…` call as well."""

import click

from server.cli.lazy_group import LazyGroup

COMMANDS = {
    "list": "server.cli.users_accounts:list_users",
    "repair": "server.cli.users_accounts:repair",
    "create": "server.cli.users_access:create",
    "block": "server.cli.users_access:block",
    "unblock": "server.cli.users_access:unblock",
    "admin": "server.cli.users_access:set_admin",
    "set-budget": "server.cli.users_budget:set_budget",
    "set-plan": "server.cli.users_budget:set_plan",
    "reencrypt": "server.cli.users_keys:reencrypt_keys",
    "rotate-key": "server.cli.users_keys:rotate_key",
    "show": "server.cli.users_reports:show",
    "usage": "server.cli.users_reports:show_usage",
    "audit": "server.cli.users_reports:show_actions",
    "delete": "server.cli.users_data:delete_user",
    "export": "server.cli.users_data:export_user",
    "purge": "server.cli.users_purge:purge",
}


@click.group(cls=LazyGroup, places=COMMANDS)
def users() -> None:
    """Manage the platform's users."""
