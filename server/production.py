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

    A LiteLLM that does not answer (within 8 s) is a warning: it may come up later, and the server does without."""
    if not settings.is_production:
        return
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
