"""`sealift demo`."""

from __future__ import annotations

import socket

import click

from bundler.cli import Settings


@click.command(epilog="\b\nExample:\n  sealift demo")
@click.option(
    "--engine",
    type=click.Choice(["vllm", "llama.cpp"]),
    default="vllm",
    show_default=True,
    help="Which engine serves; llama.cpp is the small demo.",
)
@click.option("--port", type=int, help="Loopback port of the server; else a free one.")
@click.pass_obj
def demo(settings: Settings, engine: str, port: int | None) -> None:
    """Play the whole journey on this machine, the isolated half in an empty network namespace,
    ending in a chat answer. Everything lies under HOME/demo."""
    from bundler.demo.journey import RECIPES, Demo, play

    folder = settings.workspace.home / "demo"
    play(Demo(folder, port or _free_port(), settings.sink, RECIPES[engine]))


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
