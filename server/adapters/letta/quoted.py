"""Classifies the model gateway's answer that Letta quotes in the `detail` of an error. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Self

_QUOTED: Final = re.compile(r"[Ee]rror code: (\d{3}) - ")
"""The prefix of a quoted answer, a Python dict; it contains the HTTP status."""
_STREAMED: Final = "OpenAI API error: "
"""The prefix of a quoted error that came during a stream; only its text is quoted."""
_KIND: Final = re.compile(r"""['"]type['"]: ['"](\w+)['"]""")
_CODE: Final = re.compile(r"""['"]code['"]: ['"](\w+)['"]""")
_MESSAGE: Final = r"""(?:['"]message['"]: ['"]|\A)"""
_BUDGET_WORDS: Final = re.compile(
    r"""['"]message['"]: ['"](?:Authentication Error, ?)?"""
    r"""(?:Exceeded\w*Budget\b|Budget has been exceeded|[\w =:@.-]{0,120}\bover budget\b)"""
)
"""The beginning of LiteLLM's message for budget errors without a type: only its authentication sets the type."""
_NO_DATABASE: Final = re.compile(
    r"""['"]message['"]: ['"](?:Authentication Error, ?)?(?:No connected db|DB not connected|Database not connected)""",
    re.IGNORECASE,
)
"""The beginning of LiteLLM's message if it has no database, which it needs to look up the key."""
_RATE_KINDS: Final = frozenset({"throttling_error", "rate_limit_error", "rate_limit_exceeded"})
_UPSTREAM: Final = re.compile(r"""['"]message['"]: ['"]litellm\.""")
"""The beginning of LiteLLM's message if the model behind it refused, not LiteLLM itself."""
_LITELLMS: Final = rf"{_MESSAGE}litellm\.(?:\w+: litellm\.)?"
_PROVIDERS: Final = rf"{_MESSAGE}(?:litellm\.[\w. :]{{1,100}} - )?(?:Error code: \d{{3}} - )?"
_CONTENT_WORDS: Final = re.compile(
    rf"{_LITELLMS}ContentPolicyViolationError\b"
    rf"|{_PROVIDERS}(?:Your request was rejected (?:as a result of|by) (?:our|the) safety system"
    r"|The response was filtered due to the prompt triggering|Output blocked by content filtering policy)"
)
"""The beginning of the message of a refusal for its content: LiteLLM's name for it, or the texts of providers."""
_CONTENT_CODES: Final = frozenset({"content_policy_violation", "content_filter", "ResponsibleAIPolicyViolation"})
_TOO_LONG: Final = re.compile(rf"{_LITELLMS}ContextWindowExceededError\b")


@dataclass(frozen=True, slots=True)
class QuotedAnswer:
    """`status` is None if no HTTP answer was quoted; `text` is the quoted text, "" if there is none."""

    status: int | None
    text: str

    @classmethod
    def of(cls, detail: str) -> Self:
        if quoted := _QUOTED.search(detail):
            return cls(int(quoted[1]), detail[quoted.end() :])
        _, found, words = detail.partition(_STREAMED)
        return cls(None, words if found else "")

    @property
    def _kind(self) -> str:
        """The answer's `type`: the last one, since its message, which precedes it, may quote others."""
        kinds: list[str] = _KIND.findall(self.text)
        return kinds[-1] if kinds else ""

    @property
    def is_over_budget(self) -> bool:
        kind = self._kind
        return kind == "budget_exceeded" or (kind not in _RATE_KINDS and bool(_BUDGET_WORDS.search(self.text)))

    @property
    def lacks_database(self) -> bool:
        """The gateway cannot look up the key, so the key may be valid."""
        return self._kind == "no_db_connection" or bool(_NO_DATABASE.search(self.text))

    @property
    def is_rate_limit(self) -> bool:
        return self.status == 429 or self._kind in _RATE_KINDS

    @property
    def refuses_content(self) -> bool:
        """By the content policy of the model's provider."""
        if self.status not in (None, 400, 403, 422):
            return False
        codes = _CODE.findall(self.text)
        return bool(codes and codes[-1] in _CONTENT_CODES) or bool(_CONTENT_WORDS.search(self.text))

    @property
    def denies_model(self) -> bool:
        """The user's plan does not include the model."""
        return self._kind.endswith("_model_access_denied")

    @property
    def is_upstreams(self) -> bool:
        """The model behind the gateway refused, and not the gateway."""
        return bool(_UPSTREAM.search(self.text))

    @property
    def is_too_long(self) -> bool:
        """The prompt does not fit the model."""
        return self.status == 413 or bool(_TOO_LONG.search(self.text))
