"""`sealift trust`: officers, thresholds, what is published."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import click
from securesystemslib.signer import Signer

from airgap import fsio
from airgap.errors import UsageError
from airgap.events import Line
from airgap.render import line_text
from airgap.trust.metadata import is_solo, revoked
from airgap.trust.rules import officers
from bundler.cli import Settings
from bundler.cli.key import new_passphrase, passphrase_for
from bundler.officers import keys, open_packet
from bundler.officers.collect import builder_files
from bundler.officers.repository import Published, TrustRepository
from bundler.officers.solo import init_solo
from bundler.officers.staging import TRANSIT_DAYS, Roles


@click.group()
def trust() -> None:
    """Officers and thresholds. What officers decide is a packet that they sign."""


def _repository(settings: Settings) -> TrustRepository:
    return TrustRepository(settings.workspace.trust)


def builder_key(settings: Settings) -> Path:
    """The builder's key: it signs times, and can withhold but never add."""
    return settings.workspace.keys / "builder.key"


def _say(label: str, text: str) -> None:
    click.echo(line_text(Line(label, text)))


@trust.command(
    epilog="""\b
Examples:
  sealift trust init --solo
  sealift trust init --threshold 2 \\
      --officer alice.pub --officer bob.pub --officer carol.pub"""
)
@click.option(
    "--officer",
    "officer_files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="An officer's .pub file; repeat it for each.",
)
@click.option("--threshold", type=int, default=2, show_default=True, help="Approvals needed.")
@click.option("--solo", is_flag=True, help="One key for everything, to start in a minute.")
@click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="With --solo: the new key's passphrase is this file's first line.",
)
@click.pass_obj
def init(
    settings: Settings,
    officer_files: tuple[Path, ...],
    threshold: int,
    solo: bool,
    passphrase_file: Path | None,
) -> None:
    """Set up whom isolated hosts will trust."""
    now = int(time.time())
    if solo:
        passphrase = new_passphrase(passphrase_file)
        published = init_solo(
            _repository(settings), settings.workspace.keys / "solo.key", passphrase, now
        )
        _announce(settings, published)
        return
    if not officer_files:
        raise UsageError(
            "trust.no-officers",
            "no officers were named",
            why="a trust needs officers, or --solo",
            do="see `sealift trust init --help`",
        )
    roles = _roles(settings, officer_files, threshold)
    folder = settings.workspace.home / "packets" / "init"
    open_packet.open_init(_repository(settings), folder, roles, now)
    _say("packet", f"{folder}")
    _say("next", f"{threshold} officers run: sealift approve {folder} --key NAME.key")
    _say("then", f"sealift collect {folder}")


def _roles(settings: Settings, files: tuple[Path, ...], threshold: int) -> Roles:
    path = builder_key(settings)
    if not path.exists():
        keys.new_key(path, keys.BUILDER, None)
    builder = keys.read_public(path.with_suffix(".pub")).tuf_key(officer=False)
    named = [keys.read_public(f).tuf_key(officer=True) for f in files]
    return Roles(named, builder, threshold)


def _announce(settings: Settings, published: Published) -> None:
    """Where root.json is, and what must travel on another way."""
    data = published.roots[max(published.roots)]
    out = settings.workspace.home / "root.json"
    fsio.write(out, data)
    _say("root", f"{out}")
    _say("sha256", hashlib.sha256(data).hexdigest())
    _say("next", "bring root.json and this fingerprint to each host, on two different ways")


@trust.command(epilog="\b\nExample:\n  sealift trust show")
@click.pass_obj
def show(settings: Settings) -> None:
    """Officers, threshold, approved and revoked manifests, expiry, the open packet."""
    repository = _repository(settings)
    pending = repository.pending()
    if pending.packet is not None:
        _say("open", f"packet {pending.packet[:16]} (targets {pending.targets_version})")
    published = repository.published()
    root, targets = published.root, published.targets_signed
    data = published.roots[root.version]
    _say("root", f"version {root.version}, sha256 {hashlib.sha256(data).hexdigest()}")
    names = ", ".join(sorted(officers(root, "targets")))
    k = root.roles["targets"].threshold
    _say("officers", f"{k} of {names}{' (solo)' if is_solo(root) else ''}")
    _say("expires", f"root {root.expires:%Y-%m-%d}, list {targets.expires:%Y-%m-%d}")
    _say("list", f"version {targets.version}")
    for path, info in sorted(targets.targets.items()):
        _say("approved", f"{path}  sha256 {info.hashes['sha256']}")
    for sha256 in sorted(revoked(targets)):
        _say("revoked", f"sha256 {sha256}")


_REPLACE = click.option(
    "--replace", is_flag=True, help="Give up the open packet; its version is never used again."
)


def _packet_opened(folder: Path) -> None:
    _say("packet", str(folder))
    _say("next", f"officers run: sealift approve {folder} --key NAME.key")
    _say("then", f"sealift collect {folder}")


@trust.command(
    epilog="""\b
Example:
  sealift trust revoke 9b1e...c04f     # the sha256 that `trust show` prints"""
)
@click.argument("manifest_sha256")
@_REPLACE
@click.pass_obj
def revoke(settings: Settings, manifest_sha256: str, replace: bool) -> None:
    """Open a packet that takes an approved manifest back, for ever."""
    folder = settings.workspace.home / "packets" / f"revoke-{manifest_sha256[:16]}"
    open_packet.open_revoke(
        _repository(settings), folder, manifest_sha256, int(time.time()), replace=replace
    )
    _packet_opened(folder)


@trust.command(epilog="\b\nExample:\n  sealift trust renew")
@_REPLACE
@click.pass_obj
def renew(settings: Settings, replace: bool) -> None:
    """Open a packet that gives the list a new date and changes nothing else."""
    folder = settings.workspace.home / "packets" / "renew"
    open_packet.open_renew(_repository(settings), folder, int(time.time()), replace=replace)
    _packet_opened(folder)


@trust.command(
    epilog="""\b
Example, after dave replaces carol (old and new officers must sign):
  sealift trust rotate --officer alice.pub --officer bob.pub --officer dave.pub"""
)
@click.option(
    "--officer",
    "officer_files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    required=True,
    help="A .pub file of each officer from now on.",
)
@click.option("--threshold", type=int, default=2, show_default=True, help="Approvals needed.")
@_REPLACE
@click.pass_obj
def rotate(
    settings: Settings, officer_files: tuple[Path, ...], threshold: int, replace: bool
) -> None:
    """Open a packet that changes the officers. Also the way out of solo mode."""
    roles = _roles(settings, officer_files, threshold)
    folder = settings.workspace.home / "packets" / "rotate"
    open_packet.open_rotate(_repository(settings), folder, roles, int(time.time()), replace=replace)
    _packet_opened(folder)


@trust.command(epilog="\b\nExample:\n  sealift trust refresh --transit-days 30")
@click.option(
    "--transit-days", type=int, default=TRANSIT_DAYS, show_default=True, help="Time in transit."
)
@click.option("--passphrase-file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.pass_obj
def refresh(settings: Settings, transit_days: int, passphrase_file: Path | None) -> None:
    """The builder signs time anew, so that a bundle may be carried from today on."""
    repository = _repository(settings)
    published = repository.published()
    signer = builder_signer(settings, passphrase_file)
    files = builder_files(published, published.targets, signer, int(time.time()), transit_days)
    repository.publish(files)
    _say("transit", f"bundles packed now may be carried for {transit_days} days")


def builder_signer(settings: Settings, passphrase_file: Path | None) -> Signer:
    """The builder's signer; in solo mode the one key of everything."""
    path = builder_key(settings)
    if not path.exists():
        path = settings.workspace.keys / "solo.key"
    return keys.load_signer(path, passphrase_for(path, passphrase_file))[1]
