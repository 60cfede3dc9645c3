"""`airgap status`, `start`, `stop`, `rollback`, `run`, `receipt`: after the installation."""

from __future__ import annotations

import dataclasses
import datetime
import json

import click

from airgap.cli import Settings
from airgap.errors import SealiftError, UsageError
from airgap.events import Line
from airgap.format.manifest import Manifest
from airgap.host import activate, foreground, receipts
from airgap.host.deployment import load
from airgap.host.inspect import still_approved
from airgap.host.paths import HostPaths
from airgap.host.status import Status
from airgap.host.status import status as look
from airgap.render import line_text


class _Host:
    """The host that the command is about, and its judge."""

    def __init__(self, settings: Settings) -> None:
        self.paths = HostPaths(settings.root)
        self.sink = settings.sink

    def judge(self, manifest: Manifest, digest: str) -> None:
        """Raises unless the officers' newest list still has it."""
        still_approved(self.paths, manifest, digest)

    def one_name(self, name: str | None) -> str:
        """`name`, or the only one that is installed."""
        if name is not None:
            return name
        names = sorted({s.name for s in look(self.paths)})
        if len(names) == 1:
            return names[0]
        raise UsageError(
            "host.which",
            "say which one" if names else "nothing is installed",
            why=f"{len(names)} names are installed: {', '.join(names) or 'none'}",
            do="give the name" if names else "see `airgap install --help`",
        )


_NAME = click.argument("name", required=False)


@click.command(epilog="\b\nExamples:\n  airgap status\n  airgap --json status")
@click.pass_obj
def status(settings: Settings) -> None:
    """What is installed, what of it serves, and whether it is still approved."""
    host = _Host(settings)
    found = look(host.paths)
    if not found:
        click.echo("{}" if settings.as_json else "nothing is installed")
        return
    for one in found:
        approval = _approval(host, one)
        if settings.as_json:
            click.echo(json.dumps({**dataclasses.asdict(one), "approval": approval}))
        else:
            _print(one, approval)


def _approval(host: _Host, one: Status) -> str:
    if one.manifest is None:
        return "unknown"
    try:
        manifest = load(host.paths, one.name, one.version).manifest
        still_approved(host.paths, manifest, one.manifest)
    except SealiftError as e:
        return e.id
    return "approved"


def _print(one: Status, approval: str) -> None:
    since = ""
    if one.since is not None:
        when = datetime.datetime.fromtimestamp(one.since, datetime.timezone.utc)
        since = f" since {when:%Y-%m-%d %H:%M}Z"
    mark = "*" if one.current else " "
    where = f"  {one.address}" if one.address else ""
    click.echo(f"{mark} {one.name} {one.version}  {one.state}{since}  {approval}{where}")
    if one.detail:
        click.echo(f"    {one.detail}")


@click.command(epilog="\b\nExample:\n  airgap start")
@_NAME
@click.pass_obj
def start(settings: Settings, name: str | None) -> None:
    """Serve what is installed as NAME again, after a stop or a restart of the host."""
    host = _Host(settings)
    with host.paths.exclusive("airgap start"):
        activate.start(host.paths, host.one_name(name), host.judge, host.sink)


@click.command(epilog="\b\nExample:\n  airgap stop")
@_NAME
@click.pass_obj
def stop(settings: Settings, name: str | None) -> None:
    """Stop serving NAME. Nothing is removed."""
    host = _Host(settings)
    with host.paths.exclusive("airgap stop"):
        activate.stop(host.paths, host.one_name(name), host.sink)


@click.command(
    epilog="\b\nExamples:\n  airgap rollback\n  airgap rollback qwen3-8b --version 2026.10.2"
)
@_NAME
@click.option("--version", help="To which version; else to the one that served before.")
@click.pass_obj
def rollback(settings: Settings, name: str | None, version: str | None) -> None:
    """Start the version of NAME that served before, smoke-test it, and switch back to it."""
    host = _Host(settings)
    with host.paths.exclusive("airgap rollback"):
        activate.rollback(host.paths, host.one_name(name), host.judge, host.sink, version=version)


@click.command(epilog="\b\nExample:\n  airgap run      # Ctrl-C stops it")
@_NAME
@click.pass_obj
def run(settings: Settings, name: str | None) -> int:
    """Serve NAME in the foreground until Ctrl-C or SIGTERM."""
    host = _Host(settings)
    return foreground.run_foreground(host.paths, host.one_name(name), host.judge, host.sink)


@click.command(epilog="\b\nExample:\n  airgap receipt > /media/usb/receipt.json")
@_NAME
@click.pass_obj
def receipt(settings: Settings, name: str | None) -> None:
    """Print the newest receipt as canonical JSON. Nothing in it but names and digests."""
    paths = HostPaths(settings.root)
    found = receipts.find(paths, name)
    click.echo(found.to_bytes().decode(), nl=False)
    click.echo(line_text(Line("code", found.code)), err=True)
