"""Receipts: what this host holds and runs, to be carried out."""

from __future__ import annotations

from airgap import fsio
from airgap.errors import UsageError
from airgap.format.manifest import Manifest
from airgap.format.receipt import CheckResult, Receipt
from airgap.host import ledger
from airgap.host.paths import HostPaths
from airgap.trust import state as trust_state
from airgap.trust.learn import root_of, targets_of


def write(
    paths: HostPaths, manifest: Manifest, digest: str, checks: tuple[CheckResult, ...], now: int
) -> Receipt:
    """Write the receipt of an installation. When nothing changed since the last one, that one is
    returned, so that a second run of the same command changes nothing."""
    state = trust_state.load(paths.trust)
    targets = targets_of(state)
    files = [f for a in manifest.artifacts for f in a.files]
    receipt = Receipt(
        host=state.holder,
        installed=now,
        name=manifest.name,
        version=manifest.version,
        release=manifest.release,
        manifest=digest,
        root_version=root_of(state).version,
        targets_version=targets.version if targets else 1,
        files=len(files),
        bytes=sum(b.size for b in manifest.blobs()),
        checks=checks,
        ledger_head=ledger.head(paths.ledger),
    )
    last = newest(paths, manifest.name)
    if last is not None and _same(last, receipt):
        return last
    path = paths.receipts / f"{manifest.name}-{manifest.version}-{receipt.code}.json"
    fsio.write(path, receipt.to_bytes())
    fsio.write(paths.receipts / f"{manifest.name}.json", receipt.to_bytes())
    return receipt


def _same(a: Receipt, b: Receipt) -> bool:
    """Equal but for the time and how long the checks took."""
    facts = [
        (
            r.host,
            r.manifest,
            r.root_version,
            r.targets_version,
            r.ledger_head,
            tuple((c.prompt, c.passed) for c in r.checks),
        )
        for r in (a, b)
    ]
    return facts[0] == facts[1]


def newest(paths: HostPaths, name: str) -> Receipt | None:
    """The newest receipt of that name."""
    try:
        return Receipt.from_bytes((paths.receipts / f"{name}.json").read_bytes())
    except FileNotFoundError:
        return None


def find(paths: HostPaths, name: str | None) -> Receipt:
    """The newest receipt of `name`, or of whatever was installed last. Raises UsageError."""
    names = [name] if name else _names(paths)
    found = [r for n in names if (r := newest(paths, n)) is not None]
    if not found:
        raise UsageError(
            "receipt.none",
            "there is no receipt",
            why="nothing was installed here yet" if name is None else f"{name} was not installed",
            do="`airgap install` writes one",
        )
    return max(found, key=lambda r: r.installed)


def _names(paths: HostPaths) -> list[str]:
    if not paths.deployments.is_dir():
        return []
    return sorted(p.name for p in paths.deployments.iterdir())
