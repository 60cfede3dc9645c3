"""`airgap facts` and `airgap preflight`: what this host is, and whether a bundle fits it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from airgap import fsio
from airgap.cli import Settings
from airgap.events import Line, Warn
from airgap.host.paths import HostPaths
from airgap.render import line_text, size_text


@click.command(
    epilog="""\b
Examples:
  airgap facts                      # read it before it leaves
  airgap facts -o /media/usb/host.json"""
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the facts there; without it they are printed.",
)
@click.pass_obj
def facts(settings: Settings, output: Path | None) -> None:
    """Measure this host for whoever makes bundles for it: system, Python, GPUs, disks, runtimes. No
    name, address or serial number is in it, and nothing is connected to."""
    from airgap.host.facts import measure

    found = measure(HostPaths(settings.root))
    if found.clock.behind:
        settings.sink(Warn("host.clock", "this clock shows a time that is certainly over: set it"))
    if output is None:
        click.echo(found.to_bytes().decode(), nl=False)
        return
    fsio.write(output, found.to_bytes())
    click.echo(line_text(Line("facts", f"{output}, {output.stat().st_size} bytes of plain text")))


@click.command(
    epilog="""\b
Example:
  airgap preflight /media/usb

\b
Exit codes: 0 it would run, 3 integrity, 4 not approved, 5 policy, 7 host not fit,
8 too little space. `sealift plan --host` says most of it before a medium is written."""
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.pass_obj
def preflight(settings: Settings, bundle: Path) -> None:
    """Would BUNDLE run on this host? Checks the officers' approval, then everything that the host
    must have, all at once. Reads no weights and writes nothing."""
    from airgap.host import preflight as fit
    from airgap.host.inspect import describe, inspect_bundle

    paths = HostPaths(settings.root)
    approved = inspect_bundle(paths, bundle, settings.sink).approved
    for line in describe(approved):
        settings.sink(line)
    needs = fit.preflight(paths, approved.manifest, settings.sink)
    shares = fit.per_mount(paths, needs)
    if settings.as_json:
        disks = [
            {"folder": str(s.space.folder), "free": s.space.free, "needs": s.needs} for s in shares
        ]
        click.echo(json.dumps({"fits": True, "disks": disks}))
        return
    for s in shares:
        free, left = size_text(s.space.free), size_text(s.space.free - s.needs)
        click.echo(
            f"disk      {s.space.folder}: needs {s.needs:,} bytes; {free} free, {left} after"
        )
    click.echo(
        f"fits      {approved.manifest.name} {approved.manifest.version} can be installed here"
    )
