"""LiteLLM's configuration for the local stack: one model, where it is served, and what its tokens cost. Pure.

Keys never appear in it: LiteLLM reads them from its environment (`os.environ/NAME`)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

MODEL_URL = "STACK_MODEL_URL"
MODEL_KEY = "STACK_MODEL_KEY"
"""The environment variables from which LiteLLM takes the model's address and key."""

# An id that is no public model name: with one, LiteLLM may replace our price by that model's.
DEPLOYMENT = "stack-agent-model"
SPEND_WRITE_SECONDS = 1

DEFAULT_MODEL = "gpt-4"
GPT_4_PRICES = {
    "input_cost_per_token": 0.00003,
    "output_cost_per_token": 0.00006,
    "cache_read_input_token_cost": 0.000015,
}
"""US dollars per token, as OpenAI's gpt-4; and half for cached tokens (which gpt-4 has not), to tell those apart."""

_HEADER = "# Written by `chat up` at every start.\n"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the agents' model is served; `demo` when that is the stack's own demo model."""

    model: str
    url: str
    key: str
    demo: bool = False


def configuration(upstream: Upstream, cost_map: Mapping[str, Any]) -> str:
    """The text of config.yaml (JSON, which is YAML).

    `cost_map` is LiteLLM's own: model name → prices and limits. A model it knows keeps those prices, but for
    gpt-4; one it does not is charged as gpt-4."""
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
                "model_info": {"id": DEPLOYMENT, "demo": upstream.demo},  # a server in production refuses the demo
            }
        ],
        "litellm_settings": {"drop_params": True, "num_retries": 0, "request_timeout": 600, "telemetry": False},
        # The only deployment must not be set aside for a while after an error of the model.
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
