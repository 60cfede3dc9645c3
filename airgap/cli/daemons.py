"""Hidden commands: our own daemons, started by the others.

Each imports what it runs and nothing more, before it does anything: its start is part of every cold
start, and the program's copy may be replaced while it runs.
"""

from __future__ import annotations

import click

from airgap.cli import Settings
from airgap.host.paths import HostPaths


@click.command(hidden=True)
@click.argument("name")
@click.argument("version")
@click.pass_obj
def supervise(settings: Settings, name: str, version: str) -> int:
    """Keep one engine running."""
    from airgap.host import supervise as supervisor

    return supervisor.main(HostPaths(settings.root), name, version)


@click.command(hidden=True)
@click.argument("name")
@click.option("--ahead", is_flag=True)
@click.pass_obj
def front(settings: Settings, name: str, ahead: bool) -> int:
    """Hold the stable address of one name; `ahead`: when told on stdin."""
    from airgap.host import front as front_daemon
    from airgap.host import processes

    if ahead and not processes.told_to_go():
        return 0
    return front_daemon.main(HostPaths(settings.root), name)


@click.command("supervise-gateway", hidden=True)
@click.argument("name")
@click.argument("version")
@click.pass_obj
def supervise_gateway(settings: Settings, name: str, version: str) -> int:
    """Keep one gateway running."""
    from airgap.host.gateway import service as gateway

    return gateway.main(HostPaths(settings.root), name, version)


@click.command(hidden=True)
@click.argument("name")
@click.pass_obj
def door(settings: Settings, name: str) -> int:
    """Hold the public port of one name."""
    from airgap.host.gateway import door as door_daemon

    return door_daemon.main(HostPaths(settings.root), name)


@click.command(hidden=True)
@click.argument("name")
@click.argument("version")
@click.argument("port", type=int)
@click.pass_obj
def contain(settings: Settings, name: str, version: str, port: int) -> int:
    """Run one engine's container."""
    from airgap.host.images import contain as container

    return container.main(HostPaths(settings.root), name, version, port)


@click.command("contain-gateway", hidden=True)
@click.argument("name")
@click.argument("version")
@click.argument("port", type=int)
@click.pass_obj
def contain_gateway(settings: Settings, name: str, version: str, port: int) -> int:
    """Run one gateway's container."""
    from airgap.host.gateway import inside

    return inside.main(HostPaths(settings.root), name, version, port)


@click.command("give-back", hidden=True)
@click.argument("name")
@click.argument("version")
@click.pass_obj
def give_back(settings: Settings, name: str, version: str) -> None:
    """Serve the version before again, if VERSION is current and on probation."""
    from airgap.host import give_back as returning
    from airgap.host.inspect import still_approved

    paths = HostPaths(settings.root)
    returning.give_back(
        paths, name, version, lambda m, d: still_approved(paths, m, d), settings.sink
    )
