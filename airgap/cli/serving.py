"""`airgap start`, `stop`, `rollback`, `run`: what serves, and what does not."""

from __future__ import annotations

import click

from airgap.cli import Settings
from airgap.cli.host import NAME, Host
from airgap.host import activate, foreground


@click.command(epilog="\b\nExample:\n  airgap start")
@NAME
@click.pass_obj
def start(settings: Settings, name: str | None) -> None:
    """Serve what is installed as NAME again, after a stop or a restart of the host."""
    host = Host(settings)
    with host.paths.exclusive("airgap start"):
        activate.start(host.paths, host.one_name(name), host.judge, host.sink)


@click.command(epilog="\b\nExample:\n  airgap stop")
@NAME
@click.pass_obj
def stop(settings: Settings, name: str | None) -> None:
    """Stop serving NAME. Nothing is removed."""
    host = Host(settings)
    with host.paths.exclusive("airgap stop"):
        activate.stop(host.paths, host.one_name(name), host.sink)


@click.command(
    epilog="\b\nExamples:\n  airgap rollback\n  airgap rollback qwen3-8b --version 2026.10.2"
)
@NAME
@click.option("--version", help="To which version; else to the one that served before.")
@click.pass_obj
def rollback(settings: Settings, name: str | None, version: str | None) -> None:
    """Start the version of NAME that served before, smoke-test it, and switch back to it."""
    host = Host(settings)
    with host.paths.exclusive("airgap rollback"):
        activate.rollback(host.paths, host.one_name(name), host.judge, host.sink, version=version)


@click.command(epilog="\b\nExample:\n  airgap run      # Ctrl-C stops it")
@NAME
@click.pass_obj
def run(settings: Settings, name: str | None) -> int:
    """Serve NAME in the foreground until Ctrl-C or SIGTERM."""
    host = Host(settings)
    return foreground.run_foreground(host.paths, host.one_name(name), host.judge, host.sink)
