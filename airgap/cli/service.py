"""`airgap service`: systemd as the keeper of what serves."""

from __future__ import annotations

import click

from airgap.cli import DEFAULT_ROOT, Settings
from airgap.cli.host import NAME, Host
from airgap.host import activate, launch
from airgap.host import service as work


@click.group()
def service() -> None:
    """systemd units of what serves: install them, show them, go back to our own supervisor."""


@service.command(epilog="\b\nExample:\n  airgap service install")
@click.pass_obj
def install(settings: Settings) -> None:
    """Have systemd keep everything running and bring it up with the host. What serves now is
    stopped and started again."""
    _change(settings, "systemd")


@service.command()
@click.pass_obj
def remove(settings: Settings) -> None:
    """Remove the units; our own supervisor keeps things running until the host is restarted."""
    _change(settings, "own")


def _change(settings: Settings, kind: str) -> None:
    host = Host(settings)
    with host.paths.exclusive("airgap service"):
        serving = work.stop_all(host.paths, host.sink)
        if launch.read(host.paths).kind != kind:
            work.clear(host.paths)
        launch.choose(host.paths, kind, usual_root=settings.root == DEFAULT_ROOT)
        for name in serving:
            activate.start(host.paths, name, host.judge, host.sink)


@service.command(epilog="\b\nExamples:\n  airgap service show\n  airgap service show --quadlet")
@NAME
@click.option(
    "--quadlet",
    is_flag=True,
    help="Print podman's Quadlet units of an engine from an image, for hosts that keep every "
    "container that way. They do without airgap's daemons: `airgap stop NAME` comes first.",
)
@click.pass_obj
def show(settings: Settings, name: str | None, quadlet: bool) -> None:
    """Print the units of NAME, and what systemd says about them: errors, and how exposed they
    are beside the same unit without its hardening."""
    host = Host(settings)
    if quadlet:
        for filename, text in work.quadlet(host.paths, host.one_name(name)).items():
            click.echo(f"# {filename}\n{text}")
        return
    for unit in work.show(host.paths, host.one_name(name)):
        click.echo(f"# {unit.name}\n{unit.text}")
        click.echo(f"# exposure without hardening: {unit.before}")
        click.echo(f"# exposure: {unit.after}\n")
