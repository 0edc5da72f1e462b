"""LiteLLM's configuration for the local stack: one model, its address, and its prices. Pure computation.

It contains no keys: LiteLLM reads them from its environment (`os.environ/NAME`)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

MODEL_URL = "STACK_MODEL_URL"
MODEL_KEY = "STACK_MODEL_KEY"
"""The environment variables from which LiteLLM reads the model's address and key."""

# Not the name of a public model: for such an id LiteLLM may use that model's price instead of the configured one.
DEPLOYMENT = "stack-agent-model"
SPEND_WRITE_SECONDS = 1

DEFAULT_MODEL = "gpt-4"
GPT_4_PRICES = {
    "input_cost_per_token": 0.00003,
    "output_cost_per_token": 0.00006,
    "cache_read_input_token_cost": 0.000015,
}
"""US dollars per token, as OpenAI's gpt-4. Cached tokens (not offered by gpt-4) cost half, to be visible."""

_HEADER = "# Written by `chat up` at every start.\n"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Upstream:
    """The address and key of the agents' model; `demo` if it is the stack's demo model."""

    model: str
    url: str
    key: str
    demo: bool = False


def configuration(upstream: Upstream, cost_map: Mapping[str, Any]) -> str:
    """The text of config.yaml (JSON, which is YAML).

    `cost_map` is LiteLLM's own: model name → prices and limits. Its prices are used except for gpt-4; a model without
    a price in it is charged as gpt-4."""
    settings = {
        "model_list": [
            {
                "model_name": upstream.model,
                "litellm_params": {
                    "model": f"openai/{upstream.model}",
                    "api_base": f"os.environ/{MODEL_URL}",
                    "api_key": f"os.environ/{MODEL_KEY}",
                    **_prices(upstream.model, cost_map),
                },
                "model_info": {
                    "id": DEPLOYMENT,
                    "demo": upstream.demo,
                },  # a server in production refuses the demo model
            }
        ],
        "litellm_settings": {"drop_params": True, "num_retries": 0, "request_timeout": 600, "telemetry": False},
        # The only deployment must stay in use after an error of the model.
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "database_url": "os.environ/DATABASE_URL",
            "disable_prisma_schema_update": True,
            "proxy_batch_write_at": SPEND_WRITE_SECONDS,
        },
    }
    return _HEADER + json.dumps(settings, indent=2) + "\n"


def _prices(model: str, cost_map: Mapping[str, Any]) -> dict[str, float]:
    if model == DEFAULT_MODEL:
        return GPT_4_PRICES
    if "input_cost_per_token" in cost_map.get(model, {}):
        return {}
    _log.warning("litellm.price_unknown", model=model, charged_as=DEFAULT_MODEL)
    return GPT_4_PRICES
