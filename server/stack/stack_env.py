"""`stack.env`: the URLs and keys of the local services, with the names of `.env.example`, as a dotenv file."""

from server.stack.layout import LOOPBACK, Layout, write_private
from server.stack.letta import letta_token, letta_url
from server.stack.litellm import litellm_master_key, litellm_url, upstream
from server.stack.postgres import database_url, superuser_url
from server.stack.supabase_lite import anon_key, confirms_addresses, service_key, supabase_url

DEMO_USER = "demo@example.com:Demo-user-1"
"""Not secret: only this machine reaches the server."""
HEADER = "# Written by `chat up` for the services of this data directory. Keep it private: these are master keys.\n"


def stack_environment(layout: Layout) -> dict[str, str]:
    """The settings of the API server for the local services."""
    return {
        "ENVIRONMENT": "development",
        "HOST": LOOPBACK,
        "PORT": str(layout.api_port),
        "PUBLIC_URL": f"http://{LOOPBACK}:{layout.api_port}",
        "SECRET_KEY": layout.secret("server_secret_key"),
        "SUPABASE_URL": supabase_url(layout),
        "SUPABASE_ANON_KEY": anon_key(layout),
        "SUPABASE_SERVICE_KEY": service_key(layout),
        "SUPABASE_DB_URL": superuser_url(layout),
        "LETTA_BASE_URL": letta_url(layout),
        "LETTA_API_TOKEN": letta_token(layout),
        "LETTA_DB_URL": database_url(layout, "letta"),
        "LITELLM_BASE_URL": litellm_url(layout),
        "LITELLM_MASTER_KEY": litellm_master_key(layout),
        "LITELLM_URL_FOR_LETTA": litellm_url(layout),
        "LITELLM_DB_URL": database_url(layout, "litellm"),
        "AGENT_MODEL": upstream(layout).model,
        "DEMO_MODEL": str(upstream(layout).demo).lower(),
        "DEMO_USER": demo_user(layout),
    }


def demo_user(layout: Layout) -> str:
    """The user that the console offers; none where addresses are confirmed, since nobody reads this one's mails."""
    return "" if confirms_addresses(layout) else DEMO_USER


def redis_url(layout: Layout) -> str:
    """The Redis that Letta uses."""
    return f"redis://{LOOPBACK}:{layout.port('redis')}/0"


def write_stack_env(layout: Layout) -> None:
    """Write the file (mode 0600)."""
    lines = [f"{name}={value}" for name, value in stack_environment(layout).items()]
    lines.append("# The server runs as one process without Redis; this one is Letta's:")
    lines.append(f"# REDIS_URL={redis_url(layout)}")
    write_private(layout.root / "stack.env", HEADER + "\n".join(lines) + "\n")
