"""Hidden commands: our own daemons, started by the others."""

from __future__ import annotations

import click

from airgap.cli import Settings
from airgap.host import front as front_daemon
from airgap.host import supervise as supervisor
from airgap.host.paths import HostPaths


@click.command(hidden=True)
@click.argument("name")
@click.argument("version")
@click.pass_obj
def supervise(settings: Settings, name: str, version: str) -> int:
    """Keep one engine running."""
    return supervisor.main(HostPaths(settings.root), name, version)


@click.command(hidden=True)
@click.argument("name")
@click.pass_obj
def front(settings: Settings, name: str) -> int:
    """Hold the stable address of one name."""
    return front_daemon.main(HostPaths(settings.root), name)
