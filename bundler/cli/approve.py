"""`sealift approve` and `sealift collect`: from a packet to a publication."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import click

from airgap import fsio
from airgap.events import Line
from airgap.render import line_text
from bundler.cli import Settings
from bundler.cli.key import passphrase_for
from bundler.officers.packet import Packet

_PASSPHRASE = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Read the passphrase from this file's first line instead of asking.",
)


def _say(label: str, text: str) -> None:
    click.echo(line_text(Line(label, text)))


@click.command(
    epilog="""\b
Examples:
  sealift approve packet/ --key alice.key
  sealift approve packet/ --key alice.key --fail --comment "licence unclear" """
)
@click.argument("packet", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--key",
    "key_path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    required=True,
    help="Your own private key.",
)
@click.option("--fail", is_flag=True, help="Sign that you refuse it, instead of approving.")
@click.option("--comment", default="", help="Your own words; they travel with the bundle.")
@click.option(
    "--root-sha256", help="The first time at this desk: the root's fingerprint, told to you."
)
@click.option("--yes", is_flag=True, help="Do not ask again; you have read what is shown.")
@_PASSPHRASE
@click.pass_obj
def approve(
    settings: Settings,
    packet: Path,
    key_path: Path,
    fail: bool,
    comment: str,
    root_sha256: str | None,
    yes: bool,
    passphrase_file: Path | None,
) -> None:
    """Show exactly what PACKET would change, and sign it with your key. Read REVIEW.html first."""
    from bundler.officers import approve as approval
    from bundler.officers import keys
    from bundler.officers import packet as packets
    from bundler.officers.desk import Desk

    now = int(time.time())
    found = packets.read(packet)
    officer = keys.read_public(key_path.with_suffix(".pub")).owner
    folder = settings.workspace.officers / officer
    with fsio.exclusive(folder / "lock", "sealift approve"):
        desk = Desk(folder)
        review = desk.review(found, now, root_sha256)
        _show(found, review.lines)
        verdict = "REFUSE (FAILED)" if fail else "APPROVE (PASSED)"
        if not yes:
            click.confirm(f"{officer}: {verdict} exactly this?", abort=True, err=True)
        _, signer = keys.load_signer(key_path, passphrase_for(key_path, passphrase_file))
        approval.sign(desk, review, officer, signer, now, passed=not fail, comment=comment)
    _say("signed", f"{packet / 'signatures' / officer}.json: {verdict.split()[0].lower()}d")


def _show(found: Packet, lines: tuple[str, ...]) -> None:
    _say("packet", f"{found.file.summary}  (sha256 {found.digest})")
    if found.manifest is not None:
        _say("report", f"{found.folder / 'REVIEW.html'}  sha256 {found.file.report}")
    for line in lines:
        click.echo(line)


@click.command(epilog="\b\nExample:\n  sealift collect .sealift/builds/qwen3-8b/2026.11.1/packet")
@click.argument("packet", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--transit-days", type=int, default=60, show_default=True, help="Time in transit.")
@_PASSPHRASE
@click.pass_obj
def collect(
    settings: Settings, packet: Path, transit_days: int, passphrase_file: Path | None
) -> None:
    """Check that enough officers approved PACKET, and publish it."""
    from bundler.cli.trust import builder_signer
    from bundler.officers import packet as packets
    from bundler.officers.collect import collect as publish
    from bundler.officers.repository import TrustRepository

    found = packets.read(packet)
    repository = TrustRepository(settings.workspace.trust)
    signer = builder_signer(settings, passphrase_file)
    with fsio.exclusive(settings.workspace.home / "lock", "sealift collect"):
        published = publish(found, repository, signer, int(time.time()), transit_days)
    root = published.roots[max(published.roots)]
    if "root" in found.staged:
        fsio.write(settings.workspace.home / "root.json", root)
        _say("root", f"{settings.workspace.home / 'root.json'}")
        _say("sha256", hashlib.sha256(root).hexdigest())
    _say("published", f"{found.file.summary}: targets {published.targets_signed.version}")
    if found.manifest is not None:
        _say("next", f"sealift pack {found.parsed_manifest().name} -o /media/usb")
