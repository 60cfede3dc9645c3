"""A hidden command, for install.sh: this program with the bytecode of this Python."""

from __future__ import annotations

from pathlib import Path

import click

from airgap.errors import UsageError
from airgap.host import own_copy, processes


@click.command("compile", hidden=True)
@click.argument("output", type=click.Path(path_type=Path, dir_okay=False))
def compile(output: Path) -> None:
    """Write a copy of airgap.pyz to OUTPUT that starts faster."""
    archive = processes.archive()
    if archive is None:
        raise UsageError(
            "usage",
            "there is no airgap.pyz to compile",
            why="this program runs from an installed package",
            do="run the command with the kit's airgap.pyz",
        )
    own_copy.write(archive, output)
