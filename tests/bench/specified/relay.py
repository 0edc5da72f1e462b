"""A relay as one writes it with the stack that the specification names: FastAPI, uvicorn, letta-client.

It forwards each event of the upstream to the WebSocket that asked, and does nothing else: no accounts, sessions or log.
Runs in an environment of its own, with the requirements beside this file.
"""

import argparse
import os

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from letta_client import AsyncLetta

letta = AsyncLetta(base_url=os.environ.get("UPSTREAM", ""), api_key="password", timeout=600.0)


async def chat(socket: WebSocket) -> None:
    """One connection: each frame is a message, answered by the events of its run."""
    await socket.accept()
    try:
        while True:
            message = await socket.receive_json()
            events = await letta.conversations.messages.create(
                "conv-1",
                messages=[{"role": "user", "content": message["content"]}],
                streaming=True,
                stream_tokens=True,
            )
            async for event in events:
                await socket.send_text(event.model_dump_json())
    except WebSocketDisconnect:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app = FastAPI()
    app.add_api_websocket_route("/api/v1/chat/stream", chat)
    port = parser.parse_args().port
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False, ws_per_message_deflate=False)


if __name__ == "__main__":
    main()
