"""`python -m clients.conformance [--port N] [command …]`: serve the suite, and run the command with CONFORMANCE_URL.

Without a command it serves until it is ended. With one, it exits with the command's status."""

import argparse
import asyncio
import os
import sys

from aiohttp import web

from clients.conformance.server import create_app


async def main(port: int, command: list[str]) -> int:
    runner = web.AppRunner(create_app(), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        if not command:
            print(url, flush=True)
            await asyncio.Event().wait()
        process = await asyncio.create_subprocess_exec(*command, env=os.environ | {"CONFORMANCE_URL": url})
        return await process.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    sys.exit(asyncio.run(main(options.port, options.command)))
