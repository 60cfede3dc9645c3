"""`sealift wheels`: what was locked, for tools that are not ours."""

from __future__ import annotations

from pathlib import Path

import click

from airgap.events import Line
from airgap.render import line_text
from bundler import pipeline
from bundler.cli import Settings


@click.group()
def wheels() -> None:
    """Locked wheels for other tools."""


@wheels.command(
    epilog="""\b
Example:
  sealift wheels export manifests/smollm2-llama-cpp.toml -o /media/usb/wheels
  uv pip install --offline --no-index -r /media/usb/wheels/pylock.toml"""
)
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--name", help="Which [[wheels]] of the request, where it has several.")
@click.pass_obj
def export(settings: Settings, request: Path, output: Path, name: str | None) -> None:
    """Write the locked and fetched wheels of REQUEST into a folder, with a PEP 751 lock of relative
    paths and hashes that uv and pip install from without an index."""
    from bundler.fetch.wheel_export import export as write

    found = pipeline.read_lock(request, settings.workspace)
    place = write(found, name, settings.workspace.store, output)
    click.echo(line_text(Line("exported", str(place))))
