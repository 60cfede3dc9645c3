"""What the commands about an installed host share."""

from __future__ import annotations

import click

from airgap.cli import Settings
from airgap.errors import UsageError
from airgap.format.manifest import Manifest
from airgap.host.inspect import still_approved
from airgap.host.inventory import names
from airgap.host.paths import HostPaths

NAME = click.argument("name", required=False)


class Host:
    """The host that the command is about, and its judge."""

    def __init__(self, settings: Settings) -> None:
        self.paths = HostPaths(settings.root)
        self.sink = settings.sink

    def judge(self, manifest: Manifest, digest: str) -> None:
        """Raises unless the officers' newest list still has it."""
        still_approved(self.paths, manifest, digest)

    def one_name(self, name: str | None) -> str:
        """`name`, or the only one that is installed."""
        if name is not None:
            return name
        found = names(self.paths)
        if len(found) == 1:
            return found[0]
        raise UsageError(
            "host.which",
            "say which one" if found else "nothing is installed",
            why=f"{len(found)} names are installed: {', '.join(found) or 'none'}",
            do="give the name" if found else "see `airgap install --help`",
        )
