"""`airgap uninstall` and `airgap gc`."""

from __future__ import annotations

import dataclasses
import json

import click

from airgap.cli import Settings
from airgap.cli.host import Host
from airgap.host import remove
from airgap.host.remove import Removed
from airgap.render import size_text


@click.command(
    epilog="""\b
Examples:
  airgap uninstall qwen3-8b 2026.10.2
  airgap uninstall qwen3-8b --stop --purge     # no trace of the model is left"""
)
@click.argument("name")
@click.argument("version", required=False)
@click.option("--stop", is_flag=True, help="Stop it first if it serves.")
@click.option(
    "--purge",
    is_flag=True,
    help="Remove its files from the store too, unless something else installed needs them.",
)
@click.pass_obj
def uninstall(settings: Settings, name: str, version: str | None, stop: bool, purge: bool) -> None:
    """Remove VERSION of NAME, or all of NAME. The ledger and receipts keep its name and digests."""
    host = Host(settings)
    with host.paths.exclusive("airgap uninstall"):
        done = remove.uninstall(host.paths, name, version, host.sink, stop=stop, purge=purge)
    _say(settings, done, "removed")


@click.command(epilog="\b\nExamples:\n  airgap gc --dry-run\n  airgap gc")
@click.option("--dry-run", is_flag=True, help="Say what would be removed; remove nothing.")
@click.pass_obj
def gc(settings: Settings, dry_run: bool) -> None:
    """Remove what nothing needs. Of every NAME stays what serves and one version to go back to;
    of the store, what those need."""
    host = Host(settings)
    with host.paths.exclusive("airgap gc"):
        done = remove.gc(host.paths, host.judge, host.sink, dry_run=dry_run)
    _say(settings, done, "would remove" if dry_run else "removed")


def _say(settings: Settings, done: Removed, verb: str) -> None:
    if settings.as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
        return
    what = ", ".join(done.deployments) or "no version"
    click.echo(f"{verb} {what}; {done.blobs} blobs, {size_text(done.size)}")
