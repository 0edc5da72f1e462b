"""The model gateway's own answer, as Letta quotes it in the `detail` of an error: what kind of refusal it is. Pure."""

import re
from dataclasses import dataclass
from typing import Final, Self

_QUOTED: Final = re.compile(r"[Ee]rror code: (\d{3}) - ")
"""How `detail` begins to quote an answer, a Python dict: its HTTP status."""
_STREAMED: Final = "OpenAI API error: "
"""How it begins to quote an error that came in the middle of a stream: its words alone."""
_KIND: Final = re.compile(r"""['"]type['"]: ['"](\w+)['"]""")
_CODE: Final = re.compile(r"""['"]code['"]: ['"](\w+)['"]""")
_MESSAGE: Final = r"""(?:['"]message['"]: ['"]|\A)"""
_BUDGET_WORDS: Final = re.compile(
    r"""['"]message['"]: ['"](?:Authentication Error, ?)?"""
    r"""(?:Exceeded\w*Budget\b|Budget has been exceeded|[\w =:@.-]{0,120}\bover budget\b)"""
)
"""How LiteLLM's message begins where a budget error has no type of its own: its authentication alone gives them one."""
_NO_DATABASE: Final = re.compile(
    r"""['"]message['"]: ['"](?:Authentication Error, ?)?(?:No connected db|DB not connected|Database not connected)""",
    re.IGNORECASE,
)
"""How LiteLLM's message begins where it runs without the database in which it would look the key up."""
_RATE_KINDS: Final = frozenset({"throttling_error", "rate_limit_error", "rate_limit_exceeded"})
_UPSTREAM: Final = re.compile(r"""['"]message['"]: ['"]litellm\.""")
"""How LiteLLM's message begins where the model behind it refused, not LiteLLM itself."""
_LITELLMS: Final = rf"{_MESSAGE}litellm\.(?:\w+: litellm\.)?"
_PROVIDERS: Final = rf"{_MESSAGE}(?:litellm\.[\w. :]{{1,100}} - )?(?:Error code: \d{{3}} - )?"
_CONTENT_WORDS: Final = re.compile(
    rf"{_LITELLMS}ContentPolicyViolationError\b"
    rf"|{_PROVIDERS}(?:Your request was rejected (?:as a result of|by) (?:our|the) safety system"
    r"|The response was filtered due to the prompt triggering|Output blocked by content filtering policy)"
)
"""How the message of a refusal for its content begins: by LiteLLM's name for it, or in the words of providers."""
_CONTENT_CODES: Final = frozenset({"content_policy_violation", "content_filter", "ResponsibleAIPolicyViolation"})
_TOO_LONG: Final = re.compile(rf"{_LITELLMS}ContextWindowExceededError\b")


@dataclass(frozen=True, slots=True)
class QuotedAnswer:
    """`status` is None where there was no HTTP answer; `text` what was quoted of it, "" if nothing was."""

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
        """The answer's own comes after its message, which may quote others."""
        kinds: list[str] = _KIND.findall(self.text)
        return kinds[-1] if kinds else ""

    @property
    def is_over_budget(self) -> bool:
        kind = self._kind
        return kind == "budget_exceeded" or (kind not in _RATE_KINDS and bool(_BUDGET_WORDS.search(self.text)))

    @property
    def lacks_database(self) -> bool:
        """The gateway cannot look the key up, which says nothing of the key."""
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
