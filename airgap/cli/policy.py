"""`airgap policy`: the host's own rules."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from airgap import bounded, fsio, limits
from airgap import policy as rules
from airgap.cli import Settings
from airgap.events import Line
from airgap.format.policy import Policy
from airgap.host import ledger
from airgap.host.paths import HostPaths
from airgap.render import line_text


@click.group()
def policy() -> None:
    """The host's own rules; a bundle never brings its own."""


@policy.command(epilog="\b\nExample:\n  airgap policy install strict.policy.json")
@click.argument("policy_json", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def install(settings: Settings, policy_json: Path) -> None:
    """Install POLICY_JSON, as `sealift policy compile` wrote it."""
    paths = HostPaths(settings.root)
    data = bounded.read(policy_json, limits.MAX_DOCUMENT_BYTES)
    found = Policy.from_bytes(data)
    with paths.exclusive("airgap policy install"):
        if fsio.read_if_there(paths.policy, limits.MAX_DOCUMENT_BYTES + 1) != data:
            digest = hashlib.sha256(data).hexdigest()
            ledger.append(paths.ledger, "policy-installed", {"name": found.name, "sha256": digest})
            fsio.write(paths.policy, data)
    click.echo(line_text(Line("policy", f"'{found.name}' holds from now on")))


@policy.command(epilog="\b\nExample:\n  airgap policy show")
@click.pass_obj
def show(settings: Settings) -> None:
    """Print the rules that hold, as canonical JSON."""
    found = rules.load(HostPaths(settings.root).policy)
    click.echo(found.to_bytes().decode(), nl=False)
