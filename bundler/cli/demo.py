"""`sealift demo`."""

from __future__ import annotations

import socket

import click

from bundler.cli import Settings


@click.command(epilog="\b\nExample:\n  sealift demo")
@click.option(
    "--engine",
    type=click.Choice(["llama.cpp"]),
    default="llama.cpp",
    show_default=True,
    help="Which engine serves.",
)
@click.option("--port", type=int, help="Loopback port of the server; else a free one.")
@click.pass_obj
def demo(settings: Settings, engine: str, port: int | None) -> None:
    """Play the whole journey on this machine, the isolated half in an empty network namespace,
    ending in a chat answer. Everything lies under HOME/demo."""
    from bundler.demo.journey import Demo, play

    del engine  # one choice today; the option is there so that scripts name it
    play(Demo(settings.workspace.home / "demo", port or _free_port(), settings.sink))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
