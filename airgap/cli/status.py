"""`airgap status`."""

from __future__ import annotations

import dataclasses
import datetime
import json

import click

from airgap.cli import Settings
from airgap.cli.host import Host
from airgap.errors import SealiftError
from airgap.host.deployment import load
from airgap.host.inspect import still_approved
from airgap.host.status import Status
from airgap.host.status import status as look


@click.command(epilog="\b\nExamples:\n  airgap status\n  airgap --json status")
@click.pass_obj
def status(settings: Settings) -> None:
    """What is installed, what of it serves since when, who approved it, and whether it is still
    approved."""
    host = Host(settings)
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


def _approval(host: Host, one: Status) -> str:
    if one.manifest is None:
        return "unknown"
    try:
        manifest = load(host.paths, one.name, one.version).manifest
        still_approved(host.paths, manifest, one.manifest)
    except SealiftError as e:
        return e.id
    return "approved"


def _print(one: Status, approval: str) -> None:
    since = f" since {_when(one.since)}" if one.since is not None else ""
    mark = "*" if one.current else " "
    where = f"  {one.address}" if one.address else ""
    # What lost its approval must not look like the others.
    shown = approval if approval == "approved" else f"NOT APPROVED ({approval})"
    click.echo(f"{mark} {one.name} {one.version}  {one.state}{since}  {shown}{where}")
    if one.approved_by:
        click.echo(f"    approved by {one.approved_by}; manifest {one.manifest}")
    if one.served_since is not None:
        click.echo(f"    took over {_when(one.served_since)}")
    if one.probation_until is not None:
        click.echo(f"    on probation until {_when(one.probation_until)}")
    if one.detail:
        click.echo(f"    {one.detail}")


def _when(seconds: int) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y-%m-%d %H:%M}Z"
