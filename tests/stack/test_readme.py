"""The README's first conversation by curl, pasted into a shell."""

import asyncio
import re
import uuid
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

from tests.stack.running_stack import RunningStack

README = Path(__file__).resolve().parents[2] / "README.md"


async def test_the_curl_example_registers_talks_and_shows_the_memory(stack: RunningStack) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (script,) = [block for block in blocks if "auth/register" in block]
    script = script.replace("http://127.0.0.1:8080", stack.url).replace("grace@", f"{uuid.uuid4().hex[:12]}@")
    shell = await asyncio.create_subprocess_exec("bash", "-eu", "-c", script, stdout=PIPE, stderr=STDOUT)
    async with asyncio.timeout(400):
        output, _ = await shell.communicate()
    text = output.decode()
    assert shell.returncode == 0, text
    events = re.findall(r"^event: (\S+)", text, re.MULTILINE)
    assert events[0] in ("turn.queued", "turn.started")
    assert "message.delta" in events
    assert events[-1] == "turn.completed"
    assert '"label":"human"' in text
    assert "Momo" in text.partition('"blocks"')[2]
    assert '"currency":"USD"' in text
