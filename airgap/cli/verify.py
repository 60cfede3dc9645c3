"""`airgap verify`: everything that install checks, without writing anything."""

from __future__ import annotations

import json
from pathlib import Path

import click

from airgap.cli import Settings
from airgap.host.inspect import describe, verify_bundle
from airgap.host.installed import verify_installed
from airgap.host.paths import HostPaths
from airgap.render import line_text


@click.command(
    epilog="""\b
Example:
  airgap verify /media/usb
  airgap --json verify /media/usb | tail -1
  airgap verify --installed"""
)
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--installed",
    is_flag=True,
    help="Check this host instead: every installed file against what was approved.",
)
@click.pass_obj
def verify(settings: Settings, bundle: Path | None, installed: bool) -> None:
    """Check BUNDLE completely against this host's officers and policy. Writes nothing and
    remembers nothing."""
    if (bundle is None) != installed:
        raise click.UsageError("give either a BUNDLE or --installed")
    if bundle is None:
        verify_installed(HostPaths(settings.root), settings.sink)
        click.echo(json.dumps({"verified": True}) if settings.as_json else "nothing was changed")
        return
    payload = verify_bundle(HostPaths(settings.root), bundle, settings.sink)
    if settings.as_json:
        a = payload.approved
        out = {
            "verified": True,
            "name": a.manifest.name,
            "version": a.manifest.version,
            "manifest": a.digest,
            "approved-by": sorted(a.verdicts.passed),
            "valid-until": a.valid_until,
        }
        click.echo(json.dumps(out))
        return
    for line in describe(payload.approved):
        click.echo(line_text(line))
    click.echo(f"verified  {payload.bundle}: every byte is approved")
