"""What a server without the terminal app has of it: a sentence, and nothing in memory."""

import subprocess
import sys


def output_of(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def test_neither_the_server_nor_the_client_loads_what_draws() -> None:
    code = "import sys, ai_chat_client, server.cli.main, server.app.wiring; "
    names = "{'prompt_toolkit', 'markdown_it', 'ai_chat_client.talk'}"  # structlog loads rich where it finds it
    assert output_of(f"{code}print(sorted({names} & sys.modules.keys()))") == "0 []\n"


def test_a_server_without_the_app_says_what_is_missing() -> None:
    for name in ("ai_chat_client", "rich", "prompt_toolkit"):
        code = f"import sys; sys.modules[{name!r}] = None; from server.cli.main import main; "
        told = output_of(f"{code}main(['talk', '--url', 'http://127.0.0.1:9', 'Hello'])")
        assert told.startswith("1 Error: `chat talk` needs the Python client with its extra `talk`: ")
        assert name in told
        assert "Traceback" not in told
