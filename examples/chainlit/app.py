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
    opening = asyncio.create_task(opened())
    cl.user_session.set("chat", opening)
    await opening


async def opened() -> Chat:
    """The user's chat, once its history is shown. A message that is sent meanwhile waits for that."""
    user = cl.user_session.get("user")
    chat = await Chat(URL, sign_ins[user.identifier].get_token).open()
    async for state in chat.states():
        if not state.history.is_loading:
            break
    for message in state.messages:
        await cl.Message(message.text, type="user_message" if message.role == "user" else "assistant_message").send()
    return chat


@cl.on_message
async def answer(message: cl.Message) -> None:
    chat, shown, tools = await cl.user_session.get("chat"), cl.Message(""), set()
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
    await (await cl.user_session.get("chat")).cancel()


@cl.on_chat_end
async def end() -> None:
    await (await cl.user_session.get("chat")).close()
