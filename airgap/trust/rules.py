"""What every root must be, whoever signed it (docs/bundle-format.md section 5)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from securesystemslib.signer import Key
from tuf.api.metadata import Root

from airgap.errors import TrustError
from airgap.trust.keys import material, officer_of
from airgap.trust.metadata import is_solo

OFFICER_ROLES = ("root", "targets")
BUILDER_ROLES = ("timestamp", "snapshot")


@dataclass(frozen=True)
class RootDemands:
    """What the receiver demands of a root. `accept_solo`: a person on this host said that one
    person may be everybody; it is never read from a bundle."""

    min_approvals: int
    accept_solo: bool = False


def check_root(root: Root, demands: RootDemands) -> None:
    """Raise TrustError `trust.root-rules` or `trust.min-approvals` unless rule 3 holds."""
    if not root.consistent_snapshot:
        raise _broken(root, "it does not use consistent snapshots")
    _check_distinct_material(root)
    _check_officers(root)
    _check_builders(root)
    _check_approvals(root, demands)


def officers(root: Root, role: str) -> dict[str, Key]:
    """Officer name -> key for a role of the root."""
    keys = [root.keys[keyid] for keyid in root.roles[role].keyids if keyid in root.keys]
    return {name: key for key in keys if (name := officer_of(key)) is not None}


def _check_distinct_material(root: Root) -> None:
    seen: dict[bytes, str] = {}
    for keyid, key in root.keys.items():
        other = seen.setdefault(material(key), keyid)
        if other != keyid:
            raise _broken(root, f"one public key stands under two ids, {other[:12]} {keyid[:12]}")


def _check_officers(root: Root) -> None:
    for role in OFFICER_ROLES:
        names = []
        for keyid in root.roles[role].keyids:
            key = root.keys.get(keyid)
            name = officer_of(key) if key else None
            if name is None:
                raise _broken(root, f"key {keyid[:12]} of role {role} belongs to no officer")
            names.append(name)
        twice = [n for n, count in Counter(names).items() if count > 1]
        if twice:
            raise _broken(root, f"officer {twice[0]} has two keys in role {role}")


def _check_builders(root: Root) -> None:
    officer_keys = {k for role in OFFICER_ROLES for k in root.roles[role].keyids}
    for role in BUILDER_ROLES:
        for keyid in root.roles[role].keyids:
            if is_solo(root):
                continue
            key = root.keys.get(keyid)
            if keyid in officer_keys or (key is not None and officer_of(key) is not None):
                raise _broken(root, f"key {keyid[:12]} is an officer's and the builder's at once")


def _check_approvals(root: Root, demands: RootDemands) -> None:
    solo = is_solo(root)
    if solo and not demands.accept_solo:
        raise TrustError(
            "trust.solo",
            f"root {root.version} is in solo mode: one person approves alone",
            why="this host was not told to accept that",
            do="set up officers with `sealift trust init`, or accept it for this host by "
            "`airgap trust add --accept-solo`",
        )
    wanted = 1 if solo else demands.min_approvals
    for role in OFFICER_ROLES:
        threshold = root.roles[role].threshold
        if threshold < wanted:
            raise TrustError(
                "trust.min-approvals",
                f"root {root.version} lets {threshold} officers decide, this host wants {wanted}",
                why=f"role {role} has threshold {threshold}",
                do="ask the officers for a root with a higher threshold, and raise this host's "
                "min-approvals only after it has seen that root",
            )
        if threshold > len(root.roles[role].keyids):
            raise _broken(root, f"role {role} asks for more keys than it has")


def _broken(root: Root, why: str) -> TrustError:
    return TrustError(
        "trust.root-rules",
        f"root {root.version} breaks the rules for officers' keys",
        why=why,
        do="ask the officers for a root made by `sealift trust init` or `rotate`",
    )
