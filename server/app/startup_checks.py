"""Checks of settings before the server starts, beyond their validation. Reads LiteLLM's list of models."""

import click
import structlog

from server.adapters.litellm.billing import LiteLLMBilling
from server.app.clients import open_litellm
from server.config.environment import misspelt
from server.config.settings import Settings
from server.protocol.errors import PlatformError

log = structlog.get_logger(__name__)


async def check_at_start(settings: Settings) -> None:
    """Log settings that are probably mistakes. Raises click.ClickException for the demo model in production.

    If LiteLLM does not respond within 8 s, that is a warning: it may start later, and the server works without it."""
    for given, known in misspelt():
        log.warning("settings.misspelt", given=given, meant=known, hint="A variable of this name is not read.")
    if settings.is_production:
        _warn_in_production(settings)
    elif settings.own_url is not None and settings.own_url.startswith("https:"):
        log.warning(
            "settings.development_in_public",
            url=settings.own_url,
            hint="Set ENVIRONMENT=production: else weak secrets are accepted, and faults on purpose are served.",
        )
    try:
        async with open_litellm(settings, attempts=1) as litellm:
            billing = LiteLLMBilling(litellm)
            is_listed, is_demo = await billing.lists(settings.agent_model), await billing.is_demo(settings.agent_model)
    except PlatformError as error:
        log.warning("model.unknown", model=settings.agent_model, reason=error.message)
        return
    if is_demo and settings.is_production:
        raise click.ClickException(
            f"LiteLLM serves {settings.agent_model} by the demo model, which ENVIRONMENT=production refuses;"
            " give it a model of a provider"
        )
    if not is_listed:
        log.warning(
            "model.not_listed",
            model=settings.agent_model,
            hint="No agent can answer: set AGENT_MODEL to a model_name of LiteLLM, or add it there.",
        )


def _warn_in_production(settings: Settings) -> None:
    """Log that new users have no budget, or that no proxy is configured."""
    if settings.address_header is None and settings.trusted_proxies == 0:
        log.info(
            "client_address.from_connections",
            hint="Behind a proxy all clients would count as one: set CLIENT_ADDRESS_HEADER or TRUSTED_PROXIES.",
        )
    if settings.default_budget_usd is None:
        log.warning(
            "production.no_default_budget",
            hint="New users may spend without limit: set DEFAULT_BUDGET_USD, and BUDGET_PERIOD to renew it.",
        )
