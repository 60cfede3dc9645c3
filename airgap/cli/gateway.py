"""`airgap keys` and `airgap tls`: who may ask through the gateway, and its certificate."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import click

from airgap import fsio
from airgap.cli import Settings
from airgap.errors import UsageError
from airgap.host.gateway import keys as ring
from airgap.host.gateway import tls as certificates
from airgap.host.paths import HostPaths


@click.group()
def keys() -> None:
    """Keys for the gateway. Each is shown once, when it is made; the host keeps a hash."""


@keys.command(
    epilog="\b\nExamples:\n  airgap keys add code-desk\n  airgap keys add batch -o batch.key"
)
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the key to this new file (mode 0600) instead of printing it.",
)
@click.pass_obj
def add(settings: Settings, name: str, output: Path | None) -> None:
    """Make a key called NAME and print it."""
    paths = HostPaths(settings.root)
    with paths.exclusive("airgap keys add"):
        if output is not None and output.exists():
            raise UsageError(
                "keys.output-exists",
                f"{output} exists",
                why="a key is never written over something",
                do="name a new file",
            )
        secret = ring.add(paths, name)
    if output is not None:
        fsio.write(output, f"{secret}\n".encode(), 0o600)
        secret = ""
    if settings.as_json:
        click.echo(json.dumps({"name": name, "key": secret}))
    else:
        click.echo(secret or f"wrote {output}")


@keys.command("list")
@click.pass_obj
def list_keys(settings: Settings) -> None:
    """Names of the keys and when they were made."""
    for k in ring.load(HostPaths(settings.root).keys).keys:
        if settings.as_json:
            click.echo(json.dumps({"name": k.name, "created": k.created}))
            continue
        when = datetime.datetime.fromtimestamp(k.created, datetime.timezone.utc)
        click.echo(f"{k.name:<32} {when:%Y-%m-%d %H:%M}Z")


@keys.command()
@click.argument("name")
@click.pass_obj
def revoke(settings: Settings, name: str) -> None:
    """Refuse the key called NAME from the next request on."""
    paths = HostPaths(settings.root)
    with paths.exclusive("airgap keys revoke"):
        ring.revoke(paths, name)


@click.group()
def tls() -> None:
    """The gateway's certificate. Without one of the site, the first gateway makes its own."""


@tls.command(epilog="\b\nExample:\n  airgap tls install gateway.crt gateway.key")
@click.argument("cert", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("key", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def install(settings: Settings, cert: Path, key: Path) -> None:
    """Use the certificate chain CERT with its unencrypted KEY, both PEM; a running gateway takes
    it at its next start (`airgap stop`, `airgap start`)."""
    paths = HostPaths(settings.root)
    with paths.exclusive("airgap tls install"):
        click.echo(certificates.install(paths, cert, key))


@tls.command()
@click.pass_obj
def show(settings: Settings) -> None:
    """The certificate's SHA-256, to compare at the clients."""
    click.echo(certificates.fingerprint(HostPaths(settings.root)))
