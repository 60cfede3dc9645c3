"""`airgap install`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from airgap import limits
from airgap.cli import DEFAULT_ROOT, Settings
from airgap.host import install as work
from airgap.host.launch import KINDS
from airgap.host.paths import HostPaths


@click.command(
    epilog="""\b
Examples:
  airgap install /media/usb --dry-run     # everything checked, nothing written
  airgap install /media/usb"""
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--dry-run", is_flag=True, help="Check everything, say what would happen, write nothing."
)
@click.option(
    "--allow-downgrade",
    is_flag=True,
    help="Install an older release than the one that serves, if the host's policy allows it.",
)
@click.option(
    "--adopt",
    is_flag=True,
    help="Hard-link the bundle's files instead of copying them. Only for a folder of this very "
    "file system that nobody else can write to.",
)
@click.option(
    "--uv",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The uv that installs wheels; else the kit's or the one on PATH, else pip.",
)
@click.option(
    "--supervisor",
    type=click.Choice(KINDS),
    help="Who keeps it running. Default: what this host uses already; else systemd where root runs "
    "it with the usual --root, else our own.",
)
@click.option(
    "--probation-minutes",
    type=click.IntRange(0, 60 * 24 * 30),
    default=limits.PROBATION_SECONDS // 60,
    show_default=True,
    help="How long an engine that keeps crashing makes room for the version before.",
)
@click.pass_obj
def install(
    settings: Settings,
    bundle: Path,
    dry_run: bool,
    allow_downgrade: bool,
    adopt: bool,
    uv: Path | None,
    supervisor: str | None,
    probation_minutes: int,
) -> None:
    """Check BUNDLE against this host's officers and policy, take it in, start it beside what
    serves now, smoke-test it, switch. If anything fails, what served serves on."""
    paths = HostPaths(settings.root)
    options = work.Options(
        allow_downgrade,
        adopt,
        uv,
        kit_folder(),
        probation_seconds=probation_minutes * 60,
        supervisor=supervisor,
        usual_root=settings.root == DEFAULT_ROOT,
    )
    if dry_run:
        payload = work.dry_run(paths, bundle, options, settings.sink)
        click.echo(f"would install {payload.approved.manifest.target_path}; nothing was written")
        return
    receipt = work.install(paths, bundle, options, settings.sink)
    if settings.as_json:
        click.echo(json.dumps({"receipt": receipt.to_json(), "code": receipt.code}))


def kit_folder() -> Path | None:
    """The folder of the pyz that runs: the installer kit, which may hold uv."""
    archive = Path(sys.argv[0])
    return archive.parent.resolve() if archive.suffix == ".pyz" else None
