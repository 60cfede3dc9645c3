"""`sealift store gc`, `du`, `verify`."""

from __future__ import annotations

import click

from airgap import fsio
from airgap.errors import IntegrityError
from airgap.events import Line
from airgap.render import line_text, size_text
from bundler import storage
from bundler.cli import Settings


def _say(label: str, text: str) -> None:
    click.echo(line_text(Line(label, text)))


@click.group()
def store() -> None:
    """The store that all builds of this home share."""


@store.command()
@click.option("--remove", is_flag=True, help="Remove it; without this it is only shown.")
@click.pass_obj
def gc(settings: Settings, remove: bool) -> None:
    """Show, and with --remove delete, what no lock and no manifest of this home names."""
    workspace = settings.workspace
    with fsio.exclusive(workspace.lock_file, "sealift store gc"):
        found = storage.waste(workspace)
        for one in found:
            _say("unused", f"{one.path.relative_to(workspace.home)}  {size_text(one.size)}")
        size = sum(one.size for one in found)
        if remove:
            storage.collect(found)
    _say("removed" if remove else "would free", f"{len(found)} files, {size_text(size)}")
    if found and not remove:
        _say("next", "sealift store gc --remove")


@store.command()
@click.pass_obj
def du(settings: Settings) -> None:
    """What each lock and manifest needs of the store, and what it alone needs."""
    for share in storage.shares(settings.workspace):
        alone = f"{size_text(share.alone)} of it alone"
        _say(size_text(share.size), f"{share.name}: {share.files} files, {alone}")


@store.command()
@click.pass_obj
def verify(settings: Settings) -> None:
    """Read every blob; name and move away those that are damaged (exit 3)."""
    workspace = settings.workspace
    with fsio.exclusive(workspace.lock_file, "sealift store verify"):
        bad = storage.verify(workspace.store, settings.sink)
    for name in bad:
        _say("damaged", name)
    if bad:
        raise IntegrityError(
            "store.damaged",
            f"{len(bad)} blobs of the store are damaged",
            why="their bytes do not have the SHA-256 that they are named by",
            do=f"check that disk, then run `sealift fetch` (or `lock` for local sources) again; "
            f"the damaged ones lie in {workspace.store.root / storage.DAMAGED}",
        )
    _say("verified", "every blob is what its name says")
