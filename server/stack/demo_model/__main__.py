"""`python -m server.stack.demo_model --port N [--word-delay SECONDS]`: serve the demo model on loopback."""

import click
from aiohttp import web

from server.stack.demo_model.api import create_app
from server.stack.demo_model.model import DemoModel


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
@click.option(
    "--word-delay",
    type=click.FloatRange(min=0),
    default=DemoModel().word_delay,
    envvar="DEMO_MODEL_WORD_DELAY",
    show_default=True,
    show_envvar=True,
    help="Seconds before each word of a reply.",
)
def main(host: str, port: int, word_delay: float) -> None:
    """Serve the demo model: OpenAI-compatible, with no language model behind it."""
    web.run_app(create_app(DemoModel(word_delay)), host=host, port=port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
