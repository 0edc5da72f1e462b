"""The environment variables of the server, read and validated once; `.env.example` explains them."""

import os
from collections.abc import Mapping
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from server.config import validators
from server.protocol.limits import Limits, reminder_bytes
from server.protocol.rates import RATES, RateName

MIN_SECRET_LENGTH = 32
BUDGET_PERIOD = r"^([1-9][0-9]*[smhd]|1mo)$"
"""The period of a budget in LiteLLM's format. LiteLLM refuses other numbers of months."""

HIGHEST_LIMIT = 2**31 - 1
"""The highest number of tokens or requests per minute that LiteLLM's columns can store."""
MOST_DIGITS = 15
"""The decimal digits of an amount of money that LiteLLM's floating point columns store exactly."""


RAILWAY_HEADER: Final = "X-Real-IP"
"""The header with the client's address from Railway's edge. Its X-Forwarded-For ends in an address of the edge, which
varies between requests."""


MAIL_LINK_PATH: Final = "/auth/callback"
"""The path of the page that takes the links in Supabase's e-mails."""

Registration = Literal["open", "closed"] | tuple[str, ...]


class PlanPreset(BaseModel):
    """A named plan in PLANS; what it leaves out is unlimited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: Decimal | None = Field(default=None, ge=0, max_digits=MOST_DIGITS)
    period: str | None = Field(default=None, pattern=BUDGET_PERIOD)
    tokens_per_minute: int | None = Field(default=None, gt=0, le=HIGHEST_LIMIT)
    requests_per_minute: int | None = Field(default=None, gt=0, le=HIGHEST_LIMIT)
    models: tuple[str, ...] = ()


class DemoUser(BaseModel):
    """The user that the console offers in development; both values are public. Registers like any other."""

    model_config = ConfigDict(frozen=True)

    email: str
    password: str


PlanName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class Settings(BaseSettings):
    """The server's configuration. Raises pydantic.ValidationError with each variable that is missing or invalid."""

    model_config = SettingsConfigDict(
        env_file=None, extra="ignore", case_sensitive=False, env_ignore_empty=True, hide_input_in_errors=True
    )

    supabase_url: HttpUrl
    supabase_anon_key: SecretStr
    supabase_service_key: SecretStr
    supabase_jwt_secret: SecretStr | None = None
    supabase_jwt_issuer: str | None = Field(default=None, pattern=r"^https?://\S+$")
    supabase_db_url: SecretStr | None = None

    letta_base_url: HttpUrl
    letta_api_token: SecretStr = SecretStr("")
    letta_db_url: SecretStr | None = None

    litellm_base_url: HttpUrl
    litellm_master_key: SecretStr
    litellm_url_for_letta: HttpUrl | None = None
    litellm_db_url: SecretStr | None = None

    agent_model: str = "gpt-4"
    context_window: int = Field(default=32_000, ge=4_000)
    default_budget_usd: Decimal | None = Field(default=None, gt=0, max_digits=MOST_DIGITS)
    budget_period: str | None = Field(default=None, pattern=BUDGET_PERIOD)
    default_tokens_per_minute: int | None = Field(default=None, gt=0, le=HIGHEST_LIMIT)
    default_requests_per_minute: int | None = Field(default=None, gt=0, le=HIGHEST_LIMIT)
    default_models: Annotated[tuple[str, ...], NoDecode] = ()
    plans: Annotated[dict[PlanName, PlanPreset], NoDecode] = {}
    default_plan: PlanName = "default"

    secret_key: SecretStr
    secret_key_previous: SecretStr | None = None
    environment: Literal["development", "production", "test"] = "development"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    host: str = Field(default="", pattern=r"^[0-9A-Za-z_.:%-]*$")
    port: int = Field(default=8080, ge=0, le=65535)
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: int = Field(default=0, ge=0, le=8)
    client_address_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")
    public_url: HttpUrl | None = None
    auth_redirect_url: HttpUrl | None = None
    registration: Annotated[Registration, NoDecode] = "open"
    allow_anonymous: bool = False
    require_aal2: bool = False
    redis_url: SecretStr | None = None
    console: bool = True
    demo_model: bool = False
    demo_user: Annotated[DemoUser | None, NoDecode] = None

    max_running_turns: int = Field(default=16, ge=1)
    max_connections_per_user: int = Field(default=16, ge=1)
    max_connections: int = Field(default=10_000, ge=1)
    max_unauthenticated_sockets: int = Field(default=1_000, ge=1)
    max_unauthenticated_sockets_per_address: int = Field(default=100, ge=1)
    max_waiting_turns: int = Field(default=8, ge=1)
    messages_per_minute: int = Field(default=30, ge=0)
    auth_requests_per_minute: int = Field(default=60, ge=0)
    sign_ins_per_minute: int = Field(default=10, ge=0)
    api_key_requests_per_minute: int = Field(default=120, ge=0)
    new_accounts_per_minute: int = Field(default=60, ge=0)
    requests_per_minute: int = Field(default=600, ge=0)
    memory_requests_per_minute: int = Field(default=60, ge=0)
    searches_per_minute: int = Field(default=120, ge=0)
    exports_per_minute: int = Field(default=2, ge=0)
    keep_spend_of_deleted_users: bool = True
    turn_timeout_seconds: float = Field(default=240.0, gt=0, le=280, allow_inf_nan=False)
    drain_seconds: float = Field(default=20.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: object) -> object:
        """Strip white space around pasted values; an empty value counts as not set."""
        if not isinstance(values, dict):
            return values
        clean = {name: validators.stripped(v) if isinstance(v, str) else v for name, v in values.items()}
        return {name: value for name, value in clean.items() if value != ""}

    @field_validator("supabase_url", "letta_base_url", "litellm_base_url", "litellm_url_for_letta", "public_url")
    @classmethod
    def _is_base_url(cls, value: HttpUrl | None) -> HttpUrl | None:
        if value is not None:
            validators.check_base_url(str(value))
        return value

    @field_validator("supabase_anon_key", "supabase_service_key")
    @classmethod
    def _is_supabase_key(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        validators.check_supabase_key(value.get_secret_value(), private=info.field_name == "supabase_service_key")
        return value

    @field_validator("litellm_master_key", "letta_api_token")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr) -> SecretStr:
        validators.check_credential(value.get_secret_value())
        return value

    @field_validator("supabase_db_url", "letta_db_url", "litellm_db_url")
    @classmethod
    def _is_database_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            validators.check_database_url(value.get_secret_value())
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis_url(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            validators.check_redis_url(value.get_secret_value())
        return value

    @field_validator("agent_model")
    @classmethod
    def _is_model_name(cls, value: str) -> str:
        if "," in value:
            raise ValueError("must be the name of one model, so without a comma")
        return value

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return validators.origins(value) if isinstance(value, str) else value

    @field_validator("registration", mode="before")
    @classmethod
    def _split_domains(cls, value: object) -> object:
        return validators.registration(value) if isinstance(value, str) else value

    @field_validator("default_models", mode="before")
    @classmethod
    def _split_models(cls, value: object) -> object:
        return model_names(value) if isinstance(value, str) else value

    @field_validator("plans", mode="before")
    @classmethod
    def _parse_plans(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as cause:
            raise ValueError('must be JSON, such as {"pro": {"budget": "20", "period": "1mo"}}') from cause

    @field_validator("demo_user", mode="before")
    @classmethod
    def _split_demo_user(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        email, _, password = value.partition(":")
        if "@" not in email or not password:
            raise ValueError("must be an address and a password, as demo@example.com:Demo-user-1")
        return {"email": email, "password": password}

    @field_validator("log_level", "environment", mode="before")
    @classmethod
    def _normalise_case(cls, value: object, info: object) -> object:
        if isinstance(value, str):
            return value.upper() if getattr(info, "field_name", "") == "log_level" else value.lower()
        return value

    @field_validator("client_address_header")
    @classmethod
    def _refuse_lists(cls, value: str | None) -> str | None:
        if value is not None and value.lower() in ("x-forwarded-for", "forwarded"):
            raise ValueError("must hold one address; TRUSTED_PROXIES is for X-Forwarded-For")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _is_one_line(cls, value: object) -> object:
        if isinstance(value, str):
            validators.check_text(value)
        return value

    @model_validator(mode="after")
    def _agents_model_is_in_the_plan(self) -> Self:
        if self.default_models and self.agent_model not in self.default_models:
            raise ValueError(f"DEFAULT_MODELS must contain AGENT_MODEL ({self.agent_model}), or no agent could answer")
        return self

    @model_validator(mode="after")
    def _plans_are_usable(self) -> Self:
        for name, preset in self.plans.items():
            if name == "default":
                raise ValueError("PLANS must not name a plan `default`: the settings DEFAULT_… are that one")
            if preset.models and self.agent_model not in preset.models:
                raise ValueError(f"PLANS: the models of {name} must contain AGENT_MODEL ({self.agent_model})")
        if self.default_plan not in {"default", *self.plans}:
            raise ValueError(f"DEFAULT_PLAN ({self.default_plan}) must be one of PLANS")
        return self

    @model_validator(mode="after")
    def _strict_in_production(self) -> Self:
        if not self.is_production:
            return self
        secret = self.secret_key.get_secret_value()
        if len(secret) < MIN_SECRET_LENGTH or len(set(secret)) < 10:
            raise ValueError(f"SECRET_KEY must have at least {MIN_SECRET_LENGTH} random characters in production")
        if any("*" in origin for origin in self.allowed_origins):
            raise ValueError("ALLOWED_ORIGINS must name its origins in production, without wildcards")
        if self.demo_model or self.demo_user is not None:
            raise ValueError("DEMO_MODEL and DEMO_USER are for development: empty both in production")
        return self

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def own_url(self) -> str | None:
        """This server's address for browsers, without a slash at the end: PUBLIC_URL, else Railway's domain."""
        return own_url_in_use(None if self.public_url is None else str(self.public_url), os.environ)

    @property
    def mail_link_url(self) -> str | None:
        """The page to which links in e-mails lead; None for the project's Site URL."""
        if self.auth_redirect_url is not None:
            return str(self.auth_redirect_url)
        return None if self.own_url is None else self.own_url + MAIL_LINK_PATH

    @property
    def address_header(self) -> str | None:
        """The header with the client's address, if a trusted proxy sets one."""
        return header_in_use(self.client_address_header, os.environ)

    @cached_property
    def limits(self) -> Limits:
        return Limits(
            running_turns=self.max_running_turns,
            connections_per_user=self.max_connections_per_user,
            unauthenticated_sockets=self.max_unauthenticated_sockets,
            unauthenticated_sockets_per_address=self.max_unauthenticated_sockets_per_address,
            waiting_turns_per_user=self.max_waiting_turns,
            messages_per_minute=self.messages_per_minute,
            turn_seconds=self.turn_timeout_seconds,
            reminder_bytes=reminder_bytes(self.context_window),
        )

    @property
    def rates(self) -> dict[RateName, int]:
        """The number per minute of each rate; `messages` are counted by the database."""
        return {name: getattr(self, rule.setting.lower()) for name, rule in RATES.items()}

    @property
    def model_url_for_letta(self) -> str:
        """LiteLLM's URL for Letta, ending in /v1."""
        return f"{str(self.litellm_url_for_letta or self.litellm_base_url).rstrip('/')}/v1"


def header_in_use(named: str | None, environment: Mapping[str, str]) -> str | None:
    """The header with the client's address: the one `named`, else Railway's if Railway's variables are set."""
    if named:
        return named
    return RAILWAY_HEADER if any(name.upper().startswith("RAILWAY_") for name in environment) else None


def own_url_in_use(named: str | None, environment: Mapping[str, str]) -> str | None:
    """The server's own address: the one `named`, else that of the domain which Railway gave the service."""
    if named:
        return named.rstrip("/")
    domain = environment.get("RAILWAY_PUBLIC_DOMAIN")
    return f"https://{domain}" if domain else None


def model_names(listed: str) -> tuple[str, ...]:
    """The names in a comma-separated list."""
    return tuple(name.strip() for name in listed.split(",") if name.strip())
