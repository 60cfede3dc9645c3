"""What one vector says: a host, a medium, and what must come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from airgap.format.policy import Policy
from tests.vectors.pieces import DAY, NOW, Item, Medium, medium, root, sign


@dataclass(frozen=True)
class Host:
    """What a host remembers: officers' bytes, and the latest time that they ever signed."""

    root: bytes
    targets: bytes | None = None
    clock_floor: int = NOW - 10 * DAY + 1
    accept_solo: bool = False
    policy: Policy | None = None


@dataclass(frozen=True)
class Vector:
    """`step` is the one of docs/bundle-format.md section 6 that must refuse; None accepts.

    `after`: what the host remembers after `airgap install`, whatever came of it; None: the root of
    before and the medium's newest targets.
    """

    name: str
    attack: str
    step: str | None = None
    exit: int = 0
    id: str | None = None
    medium: Medium = field(default_factory=medium)
    host: Host = field(default_factory=lambda: Host(sign(root(), "alice", "bob")))
    after: Host | None = None
    clock: int = NOW
    tree: Mapping[str, Item] | None = None

    def files(self) -> Mapping[str, Item]:
        """What lies on the medium."""
        return self.medium.tree() if self.tree is None else self.tree

    def learned(self) -> Host:
        """What the host remembers afterwards."""
        if self.after is not None:
            return self.after
        newest = self.medium.targets[self.medium.newest]
        return replace(self.host, targets=newest, clock_floor=max(NOW, self.host.clock_floor))


def changed(base: Medium, **files: Item | None) -> dict[str, Item]:
    """The medium's files with some replaced or (None) removed; names as keywords are too poor for
    paths, so this is called with `**{path: item}`."""
    tree = {**base.tree()}
    for path, item in files.items():
        if item is None:
            del tree[path]
        else:
            tree[path] = item
    return tree
