"""`airgap receipt`."""

from __future__ import annotations

import click

from airgap.cli import Settings
from airgap.cli.host import NAME
from airgap.events import Line
from airgap.host import receipts
from airgap.host.paths import HostPaths
from airgap.render import line_text


@click.command(epilog="\b\nExample:\n  airgap receipt > /media/usb/receipt.json")
@NAME
@click.pass_obj
def receipt(settings: Settings, name: str | None) -> None:
    """Print the newest receipt as canonical JSON. Nothing in it but names and digests."""
    paths = HostPaths(settings.root)
    found = receipts.find(paths, name)
    click.echo(found.to_bytes().decode(), nl=False)
    click.echo(line_text(Line("code", found.code)), err=True)
