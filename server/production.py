"""What production asks for beyond valid settings, once, before the server starts. Reads LiteLLM's list of models."""

import click
import structlog

from server.litellm_adapter.billing import LiteLLMBilling
from server.protocol.errors import PlatformError
from server.services import open_litellm
from server.settings import Settings

log = structlog.get_logger(__name__)


async def check_production(settings: Settings) -> None:
    """Raises click.ClickException where ENVIRONMENT=production meets the demo model. Anywhere else nothing is asked.

    What works, but hardly as it is meant, is logged: no budget for new users, no known proxy. A LiteLLM that does not
    answer (within 8 s) is a warning: it may come up later, and the server does without."""
    if not settings.is_production:
        return
    if settings.address_header is None and settings.trusted_proxies == 0:
        log.info(
            "client_address.from_connections",
            hint="Behind a proxy all clients would count as one: set CLIENT_ADDRESS_HEADER or TRUSTED_PROXIES.",
        )
    if settings.default_budget_usd is None:
        log.warning(
            "production.no_default_budget",
            hint="New users may spend without limit: set DEFAULT_BUDGET_USD, and BUDGET_PERIOD for it to start anew.",
        )
    try:
        async with open_litellm(settings, attempts=1) as litellm:
            is_demo = await LiteLLMBilling(litellm).is_demo(settings.agent_model)
    except PlatformError as error:
        log.warning("production.model_unknown", model=settings.agent_model, reason=error.message)
        return
    if is_demo:
        raise click.ClickException(
            f"LiteLLM serves {settings.agent_model} by the demo model, which ENVIRONMENT=production refuses;"
            " give it a model of a provider"
        )
