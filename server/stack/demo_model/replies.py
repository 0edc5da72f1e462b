"""The demo model's reply to a request: a tool call or a text. Pure and deterministic."""

import json
import re

from server.stack.demo_model.phrases import Phrases, phrases_for
from server.stack.demo_model.recall import best_match, keywords, memory_lines, same_fact
from server.stack.demo_model.wire import ChatRequest, Text, ToolCall

# Memory tools of Letta 0.16's base set, with the names of their arguments.
_MEMORY_TOOLS = {"memory_insert": ("label", "new_string"), "core_memory_append": ("label", "content")}
_USER_BLOCK = "human"

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_POLITE = r"^(?:(?:please|hi|hello|hey|ok|okay|also|and|so|now|пожалуйста|привет|а|и|ещё|также|теперь)[\s,!]+)*"
_REQUESTS = tuple(
    re.compile(_POLITE + pattern + r"(?:[\s,:—–-]+(?:that|что)\b)?[\s,:—–-]+(?P<fact>.+)$", re.IGNORECASE)
    for pattern in (
        r"(?:(?:can|could|will|would)\s+you\s+)?(?:please\s+)?(?:remember|don['’]t\s+forget|keep\s+in\s+mind)",
        r"(?:запомни(?:те)?|не\s+забудь(?:те)?)",
    )
)
_STATEMENTS = tuple(
    re.compile(_POLITE + pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<fact>my\s+name\s+is\s+.+)$",
        r"(?P<fact>call\s+me\s+.+)$",
        r"(?P<fact>my\s+favou?rite\s+.+?\s+(?:is|are)\s+.+)$",
        r"(?P<fact>меня\s+зовут\s+.+)$",
        r"(?P<fact>мо[йяёи]\s+любим\w+\s+.+)$",
    )
)
_QUESTION_WORDS = re.compile(
    r"^(?:what|who|whose|where|when|which|why|how|do|does|did|is|are|am|can|could|tell me|"
    r"что|кто|чей|где|когда|какой|какая|какое|какие|почему|как|сколько|скажи)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"^(?:user's name:|my name is|call me|меня зовут)\s+(?P<name>[^\s,.;!?]+)", re.IGNORECASE)
_NO_NAME = "friend"


def decide(request: ChatRequest) -> Text | ToolCall:
    """The complete reply to a request: a memory tool call, a confirmation, an answer or an introduction."""
    text = request.last_user_text
    phrases = phrases_for(text)
    known = list(dict.fromkeys([*memory_lines(request.system_text, _USER_BLOCK), *_saved_in_conversation(request)]))
    facts = facts_to_remember(text)
    if facts:
        return _remember(request, facts, known, phrases)
    if _is_summary_request(request):
        return Text(_summary(request))
    if is_question(text):
        return Text(_answer(text, known, request.earlier_user_texts, phrases))
    return Text(_introduction(known, phrases))


def facts_to_remember(text: str) -> list[str]:
    """The facts that the user asks to remember, one per sentence, in the user's words."""
    facts = []
    for sentence in _sentences(text):
        asked = sentence.endswith("?")
        if asked and not re.match(_POLITE + r"(?:can|could|will|would)\s", sentence, re.IGNORECASE):
            continue
        found = next((match for pattern in (*_REQUESTS, *_STATEMENTS) if (match := pattern.match(sentence))), None)
        if found is not None and (fact := found["fact"].strip().rstrip(".!?…").strip()):
            facts.append(fact[0].upper() + fact[1:])
    return facts


def is_question(text: str) -> bool:
    """Whether the last sentence is a question."""
    last = next(reversed(_sentences(text)), "")
    return last.endswith("?") or _QUESTION_WORDS.match(last) is not None


def _sentences(text: str) -> list[str]:
    return [sentence.strip() for sentence in _SENTENCE_END.split(text) if sentence.strip()]


def _remember(request: ChatRequest, facts: list[str], known: list[str], phrases: Phrases) -> Text | ToolCall:
    in_second_person = "; ".join(phrases.to_user(fact) for fact in facts)
    results = request.tool_results
    if results:
        return Text(phrases.not_saved if _failed(results[-1]) else phrases.remembered.format(in_second_person))
    new = [fact for fact in facts if not same_fact(fact, known)]
    if not new:
        return Text(phrases.known_already.format(in_second_person))
    for tool, (label, content) in _MEMORY_TOOLS.items():
        if request.offers(tool):
            return ToolCall(tool, {label: _USER_BLOCK, content: "\n".join(new)})
    return Text(phrases.no_memory.format(in_second_person))


def _saved_in_conversation(request: ChatRequest) -> list[str]:
    """Facts that memory tools saved earlier in this conversation.

    Letta 0.16 updates the memory blocks in the system prompt only when it recompiles that prompt; until then the tool
    calls are the only source."""
    failed = {message.tool_call_id for message in request.messages if message.role == "tool" and _failed(message.text)}
    lines: list[str] = []
    for message in request.messages:
        for call in message.tool_calls or []:
            if call.function.name in _MEMORY_TOOLS and call.id not in failed:
                _, content = _MEMORY_TOOLS[call.function.name]
                lines += str(call.function.decoded_arguments.get(content, "")).splitlines()
    return lines


def _failed(tool_result: str) -> bool:
    # Letta wraps a tool's result as {"status": "OK" | "Failed", "message", "time"}.
    try:
        wrapped = json.loads(tool_result)
    except ValueError:
        return tool_result.lower().startswith("error")
    return isinstance(wrapped, dict) and str(wrapped.get("status", "OK")).upper() not in {"OK", "SUCCESS"}


def _answer(text: str, known: list[str], earlier: list[str], phrases: Phrases) -> str:
    question = next(reversed(_sentences(text)), text)
    if not keywords(question):
        return _overview(known, phrases)
    fact = best_match(question, known)
    if fact is not None:
        return phrases.from_memory.format(phrases.to_user(fact))
    said = [sentence for message in earlier for sentence in _sentences(message) if not is_question(sentence)]
    quote = best_match(question, said)
    return phrases.from_conversation.format(quote.rstrip(".!")) if quote else phrases.unknown


def _overview(known: list[str], phrases: Phrases) -> str:
    facts = _without_placeholder(known)
    if not facts:
        return phrases.nothing_known
    return phrases.overview.format("; ".join(phrases.to_user(fact) for fact in facts))


def _introduction(known: list[str], phrases: Phrases) -> str:
    return f"{phrases.greeting(_user_name(known))} {phrases.introduction} {_overview(known, phrases)}"


def _user_name(known: list[str]) -> str | None:
    names = [match["name"] for line in known if (match := _NAME.match(line))]
    return names[-1] if names and names[-1].casefold() != _NO_NAME else None


def _without_placeholder(known: list[str]) -> list[str]:
    return [line for line in known if line.casefold() != f"user's name: {_NO_NAME}"]


def _is_summary_request(request: ChatRequest) -> bool:
    # Letta 0.16 compacts a conversation above its context size by a request without tools, with "summary" in it.
    if request.tools:
        return False
    return "summary" in request.system_text or "detailed summary of" in request.last_user_text


def _summary(request: ChatRequest, longest: int = 1500) -> str:
    said = " ".join(" ".join(request.earlier_user_texts or [request.last_user_text]).split())
    return f"So far the user said: {said[-longest:]}"
