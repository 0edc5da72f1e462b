"""The rates at which requests are allowed, in one typed table: refusals name them, and docs/protocol.md lists them."""

from dataclasses import dataclass
from typing import Final, Literal

RateName = Literal[
    "auth_requests",
    "sign_ins",
    "registrations",
    "mails",
    "codes",
    "new_accounts",
    "key_guesses",
    "requests",
    "key_requests",
    "memory_requests",
    "searches",
    "exports",
    "messages",
]


@dataclass(frozen=True, slots=True)
class RateRule:
    """`per`: what has a count of its own. `setting`: the variable with the number per minute, 0 for no limit.
    `sentence` is for users."""

    per: str
    setting: str
    counts: str
    sentence: str


RATES: Final[dict[RateName, RateRule]] = {
    "auth_requests": RateRule(
        "address",
        "AUTH_REQUESTS_PER_MINUTE",
        "requests to register, sign in, refresh, verify, recover and reset",
        "Too many sign-in requests from your address.",
    ),
    "sign_ins": RateRule("account", "SIGN_INS_PER_MINUTE", "wrong passwords", "Too many wrong passwords."),
    "registrations": RateRule(
        "e-mail address", "SIGN_INS_PER_MINUTE", "registrations", "Too many registrations of this e-mail address."
    ),
    "mails": RateRule(
        "e-mail address",
        "SIGN_INS_PER_MINUTE",
        "requests that send a mail there",
        "Too many mails to this e-mail address.",
    ),
    "codes": RateRule(
        "e-mail address", "SIGN_INS_PER_MINUTE", "codes from mails that are tried", "Too many codes were tried."
    ),
    "new_accounts": RateRule(
        "deployment",
        "NEW_ACCOUNTS_PER_MINUTE",
        "accounts that are opened, by registration or a first request",
        "Too many accounts are being opened.",
    ),
    "key_guesses": RateRule(
        "address", "AUTH_REQUESTS_PER_MINUTE", "wrong API keys", "Too many wrong API keys from your address."
    ),
    "requests": RateRule(
        "user", "REQUESTS_PER_MINUTE", "requests and sockets with a token or a ticket", "Too many requests."
    ),
    "key_requests": RateRule(
        "API key", "API_KEY_REQUESTS_PER_MINUTE", "requests with an API key", "Too many requests with this API key."
    ),
    "memory_requests": RateRule(
        "user",
        "MEMORY_REQUESTS_PER_MINUTE",
        "reads and changes of the agent's memory",
        "Too many requests of the agent's memory.",
    ),
    "searches": RateRule("user", "SEARCHES_PER_MINUTE", "searches in the history", "Too many searches in a minute."),
    "exports": RateRule("user", "EXPORTS_PER_MINUTE", "exports of all data", "Too many exports in a minute."),
    "messages": RateRule("user", "MESSAGES_PER_MINUTE", "messages and retries", "Too many messages in a minute."),
}
