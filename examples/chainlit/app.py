"""The platform behind Chainlit: sign-in, history, streaming, tools, stop. requirements.in says how to run it."""

import asyncio
import os

import chainlit as cl
from ai_chat_client import Auth, Chat, ChatError

URL = os.environ.get("CHAT_URL", "http://127.0.0.1:8080")
sign_ins: dict[str, Auth] = {}


@cl.password_auth_callback
async def sign_in(email: str, password: str) -> cl.User | None:
    auth = sign_ins[email] = Auth(URL)
    try:
        await auth.sign_in(email, password)
    except ChatError:
        return None
    return cl.User(identifier=email)


@cl.on_chat_start
async def start() -> None:
    chat, is_shown = Chat(URL, sign_ins[cl.user_session.get("user").identifier].get_token), asyncio.Event()
    cl.user_session.set("chat", chat)
    cl.user_session.set("is_shown", is_shown)
    try:
        await chat.open()
        async for state in chat.states():
            if not state.history.is_loading:
                break
        for message in state.messages:
            kind = "user_message" if message.role == "user" else "assistant_message"
            await cl.Message(message.text, type=kind).send()
    finally:
        is_shown.set()


@cl.on_message
async def answer(message: cl.Message) -> None:
    chat, shown, tools = cl.user_session.get("chat"), cl.Message(""), set()
    await cl.user_session.get("is_shown").wait()  # otherwise the history would show this message, too
    try:
        turn_id = await chat.send(message.content)
        async for state in chat.states():
            turn = next(turn for turn in state.turns if turn.id == turn_id)
            reply = turn.reply or turn.user
            for tool in reply.tools:
                if tool.status != "running" and tool.id not in tools:
                    tools.add(tool.id)
                    async with cl.Step(name=tool.name, type="tool") as step:
                        step.input = tool.arguments
            if turn.reply:
                await shown.stream_token(reply.text, is_sequence=True)
            if reply.status not in ("queued", "sent", "streaming"):
                break
        shown.content = f"{reply.text if turn.reply else ''}\n\n{reply.error.message if reply.error else ''}".strip()
    except ChatError as error:
        shown.content = error.message
    await shown.update() if shown.content else None


@cl.on_stop
async def stop() -> None:
    await cl.user_session.get("chat").cancel()


@cl.on_chat_end
async def end() -> None:
    await cl.user_session.get("chat").close()
