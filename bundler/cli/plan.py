"""`sealift plan`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from airgap.errors import HostError
from bundler.cli import Settings


@click.command(
    epilog="""\b
Examples:
  sealift plan manifests/qwen3-8b.toml
  sealift plan manifests/qwen3-8b.toml --host host.json   # measured there by `airgap facts`
  sealift --json plan manifests/qwen3-8b.toml             # all of it in numbers

\b
Exit code 7: it does not fit that host; the plan says what would."""
)
@click.argument("request", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--host",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What `airgap facts` wrote on the isolated host.",
)
@click.pass_obj
def plan(settings: Settings, request: Path, host: Path | None) -> None:
    """Say what REQUEST would take, before anything large is downloaded: bytes, media, disk, GPU
    memory for weights and cache, and whether wheels and image suit the host and its driver. When a
    model of the Hub does not fit, quantised ones that the Hub has are named; nothing is locked.

    Asks Hub, indexes and registries; without --host the facts that [target] names count.
    """
    from bundler import facts
    from bundler.plan import report
    from bundler.plan.reckon import reckon
    from bundler.request import read

    asked = read(request)
    measured = facts.read(host) if host is not None else facts.of_request(request)
    found = reckon(asked, request.parent, settings.workspace, measured, settings.sink)
    if settings.as_json:
        click.echo(json.dumps(report.as_json(found)))
    else:
        click.echo(report.text(found), nl=False)
    if not found.fits:
        raise HostError(
            "plan.not-fit",
            f"{asked.name} {asked.version} does not fit that host",
            why="the lines that begin with NO say what is in the way",
            do="follow a line that begins with `do`, change the request, and plan again",
        )
