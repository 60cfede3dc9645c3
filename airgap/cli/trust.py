"""`airgap trust`: whom this host believes."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import click

from airgap import bounded, limits, policy
from airgap.cli import Settings
from airgap.errors import TrustError, UsageError
from airgap.events import Line
from airgap.host import ledger
from airgap.host.paths import HostPaths
from airgap.render import line_text
from airgap.trust import state as trust_state
from airgap.trust.learn import check_first_root, root_of, targets_of
from airgap.trust.metadata import is_solo, issued, revoked
from airgap.trust.rules import RootDemands, officers
from airgap.trust.state import Remembered


@click.group()
def trust() -> None:
    """Whom this host trusts."""


@trust.command(
    epilog="""\b
Example:
  sha256sum root.json        # compare with the sheet that came on another way
  airgap trust add root.json --sha256 4f1c...   (or answer the question)"""
)
@click.argument("root_json", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--sha256", help="The fingerprint from the sheet; without it you are asked.")
@click.option(
    "--accept-solo",
    is_flag=True,
    help="Accept a root in solo mode: one person approves alone. Lapses with the first root "
    "that has officers.",
)
@click.pass_obj
def add(settings: Settings, root_json: Path, sha256: str | None, accept_solo: bool) -> None:
    """Trust the officers of ROOT_JSON. Once: existing trust is never replaced."""
    paths = HostPaths(settings.root)
    with paths.exclusive("airgap trust add"):
        _check_nothing_yet(paths)
        data = bounded.read(root_json, limits.MAX_ROOT_BYTES)
        found = hashlib.sha256(data).hexdigest()
        _check_fingerprint(found, sha256)
        demands = RootDemands(policy.load(paths.policy).min_approvals, accept_solo)
        root = check_first_root(data, demands)
        solo = is_solo(root)
        state = Remembered(f"host-{secrets.token_hex(8)}", data, None, issued(root), solo)
        entry = {"root": found, "version": str(root.version), "solo": str(solo).lower()}
        ledger.append(paths.ledger, "trust-added", entry)
        trust_state.save(paths.trust, state)
    names = ", ".join(sorted(officers(root, "targets")))
    k = root.roles["targets"].threshold
    click.echo(line_text(Line("trust", f"root {root.version}: {k} of {names} must approve")))


def _check_nothing_yet(paths: HostPaths) -> None:
    if paths.trust.exists():
        raise TrustError(
            "trust.exists",
            "this host trusts somebody already",
            why=f"{paths.trust} exists, and trust is never replaced",
            do="new officers come with a root that the old ones signed, inside a bundle; "
            "to start over use another --root",
        )
    if ledger.last(ledger.read(paths.ledger), "trust-added") is not None:
        raise TrustError(
            "trust.state-damaged",
            "this host trusted somebody before, and the record is gone",
            why=f"the ledger says that trust was added, but {paths.trust} does not exist",
            do="restore that file from a backup, or start over with another --root: "
            "an empty memory could bring back what was revoked",
        )


def _check_fingerprint(found: str, told: str | None) -> None:
    if told is None:
        click.echo(f"root.json has sha256\n  {found}", err=True)
        if not click.confirm("Is that the fingerprint on the sheet?", err=True):
            told = ""
        else:
            return
    if told.strip().lower() != found:
        raise TrustError(
            "trust.fingerprint",
            "this is not the root on the sheet",
            why=f"it has sha256 {found}",
            do="get root.json and the sheet again, each on its own way; nothing was written",
        )


@trust.command(epilog="\b\nExample:\n  airgap trust show")
@click.pass_obj
def show(settings: Settings) -> None:
    """Root, officers, threshold, newest list, revocations."""
    paths = HostPaths(settings.root)
    if not paths.root.exists():
        raise UsageError(
            "host.no-root",
            f"{paths.root} does not exist",
            why="nothing was set up there",
            do="name the right --root, or start with `airgap trust add`",
        )
    state = trust_state.load(paths.trust)
    root = root_of(state)
    fingerprint = hashlib.sha256(state.root).hexdigest()
    click.echo(line_text(Line("root", f"version {root.version}, sha256 {fingerprint}")))
    k = root.roles["targets"].threshold
    names = ", ".join(sorted(officers(root, "targets")))
    click.echo(line_text(Line("officers", f"{k} of {names}{' (solo)' if is_solo(root) else ''}")))
    click.echo(line_text(Line("expires", f"{root.expires:%Y-%m-%d}")))
    targets = targets_of(state)
    if targets is None:
        click.echo(line_text(Line("list", "none seen yet")))
        return
    click.echo(line_text(Line("list", f"version {targets.version}")))
    for path in sorted(targets.targets):
        click.echo(line_text(Line("approved", path)))
    for sha256 in sorted(revoked(targets)):
        click.echo(line_text(Line("revoked", sha256)))
