"""Bytes: to download, to carry, to have free on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airgap import limits
from airgap.format.facts import Facts
from airgap.format.types import Serve

# Bytes of user data on one medium, as its maker counts. A stick has the room that its label says,
# less a hundredth for its file system.
MEDIA: Mapping[str, int] = {
    "usb": 63_360_000_000,  # a stick of 64 GB
    "dvd": 4_700_372_992,  # DVD+R, one layer
    "bd": 25_025_314_816,  # BD-R, one layer
}
# What a bundle has beside its payload: trust, evidence, report, bill of materials.
_BESIDE_BYTES = 16 * limits.MIB


@dataclass(frozen=True)
class Part:
    """One artifact: its files and bytes, how many of them are in the store already, and how many
    files do not say their size before they are fetched."""

    name: str
    kind: str
    source: str
    files: int
    bytes: int
    here: int = 0
    unknown: int = 0
    note: str = ""


@dataclass(frozen=True)
class Disk:
    """On the host, in bytes: what the import writes, what is unpacked of it (an estimate), and
    what the host has free where airgap's state lies (None: not measured)."""

    imported: int
    unpacked: int
    free: int | None

    @property
    def lacking(self) -> int:
        """Bytes that must be freed first."""
        return max(0, self.imported + self.unpacked - self.free) if self.free is not None else 0


def media(total: int) -> dict[str, int]:
    """How many of each medium a bundle of `total` bytes of payload takes."""
    return {name: -(-(total + _BESIDE_BYTES) // size) for name, size in MEDIA.items()}


def disk(parts: list[Part], serve: Serve | None, facts: Facts | None) -> Disk:
    """As the host's own preflight reckons."""
    root = facts.root_disk() if facts else None
    unpacked = 0
    if serve is not None:
        kinds = {"wheels": limits.WHEEL_UNPACK_FACTOR, "image": limits.IMAGE_UNPACK_FACTOR}
        unpacked = sum(p.bytes * kinds.get(p.kind, 0) for p in parts) + limits.HOST_RESERVE_BYTES
    imported = sum(p.bytes for p in parts) + _BESIDE_BYTES
    return Disk(imported, unpacked, root.free if root else None)
