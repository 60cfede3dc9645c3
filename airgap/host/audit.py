"""The ledger against receipts that left this host: what they say was last must still be there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import IntegrityError
from airgap.format.receipt import Receipt
from airgap.host import ledger
from airgap.host.ledger import Chain
from airgap.host.paths import HostPaths
from airgap.trust import state as trust_state


@dataclass(frozen=True)
class Audit:
    """A chain that fits, and how many receipts it was held against."""

    chain: Chain
    receipts: int


def audit(paths: HostPaths, carried_out: tuple[Path, ...] = ()) -> Audit:
    """Check the whole chain, this host's receipts, and those that were carried out.

    Raises IntegrityError `ledger.broken`, `audit.rewritten` (a receipt's head is not in the chain,
    or its switch is not), `audit.other-host`.
    """
    chain = ledger.read(paths.ledger)
    host = trust_state.load(paths.trust).holder
    own = sorted(paths.receipts.glob("*.json")) if paths.receipts.is_dir() else []
    seen = 0
    for path, receipt in _receipts((*own, *carried_out)):
        if receipt.host != host:
            raise IntegrityError(
                "audit.other-host",
                f"{path} is a receipt of another host",
                why=f"it says {receipt.host}, this is {host}",
                do="give only receipts of this host; if it is one, this host was set up anew",
            )
        _check(chain, path, receipt)
        seen += 1
    return Audit(chain, seen)


def _receipts(paths: tuple[Path, ...]) -> Iterator[tuple[Path, Receipt]]:
    for path in paths:
        with fsio.disk_errors(f"reading {path}"), open(path, "rb") as f:
            data = f.read(limits.MAX_DOCUMENT_BYTES + 1)
        yield path, Receipt.from_bytes(data)


def _check(chain: Chain, path: Path, receipt: Receipt) -> None:
    """The entry whose hash the receipt carries is there, and the receipt's switch not after it."""
    until = next((i for i, e in enumerate(chain.entries) if e.hash == receipt.ledger_head), None)
    if until is None:
        raise _rewritten(path, f"no entry has the hash {receipt.ledger_head} that it carries")
    served = (
        e.event == "switch"
        and e.data.get("version") == receipt.version
        and e.data.get("manifest") == receipt.manifest
        for e in chain.entries[: until + 1]
    )
    if receipt.checks and not any(served):
        raise _rewritten(path, f"no entry says that {receipt.name} {receipt.version} took over")


def _rewritten(path: Path, why: str) -> IntegrityError:
    return IntegrityError(
        "audit.rewritten",
        f"the ledger was rewritten after the receipt {path} left this host",
        why=why,
        do="keep ledger and receipts as evidence: somebody with write access here changed history",
    )
