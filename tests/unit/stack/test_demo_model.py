"""The demo model: its memory, its answers, and its OpenAI-compatible API."""

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from server.stack.demo_model.api import create_app
from server.stack.demo_model.embeddings import embed
from server.stack.demo_model.model import DemoModel, words
from server.stack.demo_model.replies import decide, facts_to_remember, is_question
from server.stack.demo_model.tokens import PromptCache, count_tokens
from server.stack.demo_model.wire import ChatRequest, Text, ToolCall

MEMORY_INSERT = {
    "type": "function",
    "function": {
        "name": "memory_insert",
        "description": "Insert text into a memory block.",
        "parameters": {
            "type": "object",
            "properties": {
                "label": {"type": "string"},
                "new_string": {"type": "string"},
                "insert_line": {"type": "integer"},
            },
            "required": ["label", "new_string"],
        },
    },
}


def system(*facts: str) -> dict[str, Any]:
    """A system prompt with memory blocks in the format of Letta 0.16.8."""
    value = "\n".join(facts)
    return {
        "role": "system",
        "content": (
            "<memory_blocks>\nThe following memory blocks are currently engaged in your core memory unit:\n\n"
            "<human>\n<description>\nThe human block: Stores key details about the person.\n</description>\n"
            f"<metadata>\n- chars_current={len(value)}\n- chars_limit=100000\n</metadata>\n"
            f"<value>\n{value}\n</value>\n</human>\n\n"
            "<persona>\n<description>\nThe persona block.\n</description>\n<metadata>\n- chars_current=3\n</metadata>\n"
            "<value>\nI am patient.\n</value>\n</persona>\n\n</memory_blocks>"
        ),
    }


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def request(*messages: dict[str, Any], tools: list[dict[str, Any]] | None = None, **more: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "gpt-4", "messages": list(messages), "tools": tools, **more})


def said(chat: ChatRequest) -> str:
    reply = decide(chat)
    assert isinstance(reply, Text)
    return reply.text


@pytest.mark.parametrize(
    ("message", "facts"),
    [
        ("Remember that my favourite colour is teal.", ["My favourite colour is teal"]),
        ("remember: the door code is 4711", ["The door code is 4711"]),
        ("Hi! Please remember I am allergic to nuts. What can I eat?", ["I am allergic to nuts"]),
        ("Can you remember that my cat is called Tom?", ["My cat is called Tom"]),
        ("Don't forget to water the plants", ["To water the plants"]),
        ("Remember my site is example.com. My name is Ann.", ["My site is example.com", "My name is Ann"]),
        ("My name is Ann!", ["My name is Ann"]),
        ("My favorite food is ramen", ["My favorite food is ramen"]),
        ("Запомни, что я живу в Казани.", ["Я живу в Казани"]),
        ("Пожалуйста, запомните: код двери 4711", ["Код двери 4711"]),
        ("Меня зовут Аня", ["Меня зовут Аня"]),
        ("Do you remember my name?", []),
        ("I remember the summer of 1999", []),
        ("Ты помнишь, как меня зовут?", []),
        ("Hello there", []),
        ("", []),
    ],
)
def test_facts_are_found_only_in_requests_to_remember(message: str, facts: list[str]) -> None:
    assert facts_to_remember(message) == facts


def test_a_request_to_remember_calls_the_memory_tool_with_lettas_arguments() -> None:
    reply = decide(request(system(), user("Remember that my cat is Tom"), tools=[MEMORY_INSERT]))

    assert reply == ToolCall("memory_insert", {"label": "human", "new_string": "My cat is Tom"})


def test_a_request_to_remember_without_a_memory_tool_is_declined() -> None:
    assert "no memory tool" in said(request(system(), user("Remember that my cat is Tom")))


def test_tool_choice_none_is_respected() -> None:
    chat = request(system(), user("Remember that my cat is Tom"), tools=[MEMORY_INSERT], tool_choice="none")

    assert isinstance(decide(chat), Text)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ('{"status": "OK", "message": "My cat is Tom", "time": "now"}', "Done, I will remember: your cat is Tom."),
        ('{"status": "Failed", "message": "read-only", "time": "now"}', "could not be changed"),
        ("Error executing tool", "could not be changed"),
    ],
)
def test_the_reply_reports_the_result_of_the_tool(result: str, expected: str) -> None:
    called = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "function": {"name": "memory_insert", "arguments": "{}"}}],
    }
    chat = request(
        system(),
        user("Remember that my cat is Tom"),
        called,
        {"role": "tool", "tool_call_id": "call_1", "content": result},
        tools=[MEMORY_INSERT],
    )

    assert expected in said(chat)


def test_a_fact_already_known_is_not_stored_twice() -> None:
    chat = request(system("My cat is Tom"), user("Remember that my cat is Tom!"), tools=[MEMORY_INSERT])

    assert said(chat) == "I know that already: your cat is Tom."


@pytest.mark.parametrize(
    ("facts", "question", "answer"),
    [
        (
            ["My favourite colour is teal"],
            "What is my favourite colour?",
            "From memory: your favourite colour is teal.",
        ),
        (["My favourite colour is teal"], "what's my favorite color", "From memory: your favourite colour is teal."),
        (["User's name: Ann"], "What is my name?", "From memory: your name is Ann."),
        (["User's name: Ann", "My name is Bob"], "What is my name?", "From memory: your name is Bob."),
        (["I am allergic to nuts"], "What am I allergic to?", "From memory: you are allergic to nuts."),
        (["Я живу в Казани"], "Где я живу?", "Помню, вы говорили: я живу в Казани."),
        (["User's name: Аня"], "Как меня зовут?", "Помню, вы говорили: вас зовут Аня."),
        (["Мой любимый цвет бирюзовый"], "Какой мой любимый цвет?", "Помню, вы говорили: мой любимый цвет бирюзовый."),
    ],
)
def test_questions_are_answered_from_the_memory_block(facts: list[str], question: str, answer: str) -> None:
    assert said(request(system(*facts), user(question))) == answer


def test_a_fact_with_one_common_word_is_not_an_answer() -> None:
    assert "I do not know" in said(request(system("My favourite colour is teal"), user("What is my favourite food?")))


def test_an_unknown_fact_is_answered_by_i_do_not_know() -> None:
    answer = said(request(system("My favourite colour is teal"), user("What is the capital of France?")))

    assert "demo model" in answer
    assert "OPENAI_API_KEY" in answer


def test_the_conversation_is_searched_when_memory_has_no_answer() -> None:
    chat = request(system(), user("I have a dog called Rex."), user("What is my dog called?"))

    assert said(chat) == "You said earlier: “I have a dog called Rex”."


def test_facts_saved_earlier_in_the_conversation_count_as_memory() -> None:
    arguments = json.dumps({"label": "human", "new_string": "My cat is Tom"})
    called = {
        "role": "assistant",
        "tool_calls": [{"id": "call_1", "function": {"name": "memory_insert", "arguments": arguments}}],
    }
    result = {"role": "tool", "tool_call_id": "call_1", "content": '{"status": "OK"}'}

    chat = request(system(), user("Remember that my cat is Tom"), called, result, user("Who is my cat?"))

    assert said(chat) == "From memory: your cat is Tom."


def test_a_question_about_the_user_is_answered_with_all_facts() -> None:
    chat = request(system("User's name: Ann", "My cat is Tom"), user("What do you remember about me?"))

    assert said(chat) == "This is what I remember: your name is Ann; your cat is Tom."


def test_the_placeholder_name_is_not_a_memory() -> None:
    assert said(request(system("User's name: Friend"), user("Who am I?"))) == "I remember nothing about you yet."


def test_a_greeting_is_answered_with_the_users_name_and_an_introduction() -> None:
    reply = said(request(system("User's name: Ann"), user("hi")))

    assert reply.startswith("Hello, Ann! I am the demo model")


def test_russian_is_answered_in_russian() -> None:
    assert said(request(system(), user("Привет!"))).startswith("Здравствуйте! Я демонстрационная модель")


def test_a_conversation_being_compacted_is_summed_up() -> None:
    chat = request({"role": "system", "content": "Write a detailed summary."}, user("user: I moved to Oslo"))

    assert said(chat) == "So far the user said: user: I moved to Oslo"


@pytest.mark.parametrize(("text", "asks"), [("Where?", True), ("tell me a joke", True), ("I like tea.", False)])
def test_questions_are_distinguished_from_statements(text: str, asks: bool) -> None:
    assert is_question(text) is asks


def test_words_join_back_to_the_text() -> None:
    text = "Say “remember …”,\nand ask."

    assert "".join(words(text)) == text


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("cat", 1), ("remember", 2), ("a, b", 3), ("Казань", 2)])
def test_tokens_are_counted_deterministically(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


class TestPromptCache:
    LONG = system(*(f"Fact number {n} about many things" for n in range(400)))

    def test_an_unchanged_long_beginning_is_cached_in_steps_of_128(self) -> None:
        cache = PromptCache()
        first = cache.measure(request(self.LONG, user("one"), user="ann"))
        second = cache.measure(request(self.LONG, user("two"), user="ann"))

        assert first.cached == 0
        assert 1024 <= second.cached < second.total
        assert second.cached % 128 == 0

    def test_the_cache_is_per_user(self) -> None:
        cache = PromptCache()
        cache.measure(request(self.LONG, user("one"), user="ann"))

        assert cache.measure(request(self.LONG, user("one"), user="bob")).cached == 0

    def test_a_short_prompt_is_never_cached(self) -> None:
        cache = PromptCache()
        cache.measure(request(user("one")))

        assert cache.measure(request(user("one"))).cached == 0


def test_texts_that_share_words_have_closer_embeddings() -> None:
    def likeness(one: str, other: str) -> float:
        return sum(a * b for a, b in zip(embed(one), embed(other), strict=True))

    assert likeness("the green tea", "green tea leaves") > likeness("the green tea", "a blue whale")
    assert likeness("tea", "tea") == pytest.approx(1)


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(create_app(DemoModel(word_delay=0)))) as client:
        yield client


async def events(client: TestClient[Any, Any], body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of a streamed completion, which must end with [DONE]."""
    response = await client.post("/v1/chat/completions", json={"model": "gpt-4", "stream": True, **body})
    assert response.status == 200
    assert response.content_type == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in (await response.text()).split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


async def test_a_stream_has_the_same_text_as_a_plain_reply(client: TestClient[Any, Any]) -> None:
    body = {"messages": [system("User's name: Ann"), user("hi")]}
    plain = await (await client.post("/v1/chat/completions", json={"model": "gpt-4", **body})).json()
    chunks = await events(client, {**body, "stream_options": {"include_usage": True}})

    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == plain["choices"][0]["message"]["content"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"] == plain["usage"]
    assert plain["usage"]["total_tokens"] == plain["usage"]["prompt_tokens"] + plain["usage"]["completion_tokens"]


async def test_usage_is_streamed_only_when_asked_for(client: TestClient[Any, Any]) -> None:
    chunks = await events(client, {"messages": [user("hi")]})

    assert all("usage" not in chunk for chunk in chunks)


async def test_a_streamed_tool_call_has_its_name_first_and_arguments_in_parts(client: TestClient[Any, Any]) -> None:
    body = {"messages": [system(), user("Remember that my cat is Tom")], "tools": [MEMORY_INSERT]}
    chunks = await events(client, body)

    deltas = [delta for c in chunks for delta in c["choices"][0]["delta"].get("tool_calls", [])]
    assert deltas[0]["function"] == {"name": "memory_insert", "arguments": ""}
    assert deltas[0]["id"].startswith("call_")
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    assert json.loads(arguments) == {"label": "human", "new_string": "My cat is Tom"}
    assert len(deltas) > 2
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_the_token_limit_ends_the_reply(client: TestClient[Any, Any]) -> None:
    body = {"model": "gpt-4", "messages": [user("hi")], "max_completion_tokens": 3}
    reply = await (await client.post("/v1/chat/completions", json=body)).json()

    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["usage"]["completion_tokens"] >= 3
    assert len(reply["choices"][0]["message"]["content"].split()) <= 3


@pytest.mark.parametrize(
    ("body", "where"),
    [("{", "Invalid JSON"), ("{}", "model"), ('{"model": "gpt-4", "messages": []}', "messages")],
)
async def test_a_malformed_request_gets_openais_error_shape(
    client: TestClient[Any, Any], body: str, where: str
) -> None:
    response = await client.post("/v1/chat/completions", data=body)

    assert response.status == 400
    assert where in (await response.json())["error"]["message"]


async def test_an_unknown_path_gets_openais_error_shape(client: TestClient[Any, Any]) -> None:
    response = await client.get("/v1/nothing")

    assert response.status == 404
    assert (await response.json())["error"]["code"] == "404"


async def test_the_models_are_listed(client: TestClient[Any, Any]) -> None:
    listed = await (await client.get("/v1/models")).json()

    assert "gpt-4" in [model["id"] for model in listed["data"]]


async def test_embeddings_are_numbers_or_base64(client: TestClient[Any, Any]) -> None:
    body = {"model": "text-embedding-3-small", "input": ["tea", "milk"], "dimensions": 8}
    plain = await (await client.post("/v1/embeddings", json=body)).json()
    packed = await (await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()

    decoded = struct.unpack("<8f", base64.b64decode(packed["data"][1]["embedding"]))
    assert list(decoded) == pytest.approx(plain["data"][1]["embedding"])
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
