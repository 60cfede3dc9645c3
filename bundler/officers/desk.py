"""One officer's desk: what this officer trusts, what this officer signed, and the checks before
the next signature (docs/threat-model.md, the builder's machine).

The desk never believes the packet about the past: base metadata must verify against what this
officer's own state remembers, and the staged version must differ from it by exactly the one change
that the packet announces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tuf.api.metadata import Metadata, Root, Targets

from airgap import fsio, limits
from airgap.errors import TrustError
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.trust import state as trust_state
from airgap.trust.decide import DAY
from airgap.trust.learn import check_first_root, learn_roots, learn_targets, root_of, targets_of
from airgap.trust.metadata import is_solo, issued, parse
from airgap.trust.rules import RootDemands, check_root
from airgap.trust.state import Remembered
from bundler.officers.difference import TargetsDifference, of_roots, of_targets
from bundler.officers.packet import Packet
from bundler.officers.staging import to_bytes

# An officer's own clock and the builder's may differ by this much, in seconds.
_CLOCK_SKEW = DAY
# The longest that officers' metadata may be valid, in seconds.
_LONGEST = 3 * 366 * DAY


@dataclass(frozen=True, kw_only=True)
class Signed(Document):
    """What this officer ever signed: `ROLE/VERSION` -> SHA-256 of the signed bytes."""

    schema: Annotated[str, Choice(("sealift.signed/1",))] = "sealift.signed/1"
    signed: Mapping[str, str]


@dataclass(frozen=True)
class Review:
    """A packet that passed this desk's checks: the exact difference, in words, and the new trusted
    base. `lines` is what the officer must be shown in full."""

    packet: Packet
    base: Remembered | None
    root: Root
    lines: tuple[str, ...]


class Desk:
    """State of one officer under `folder` (home/officers/NAME)."""

    def __init__(self, folder: Path) -> None:
        self._trust = folder / "trust.json"
        self._signed = folder / "signed.json"

    def remembered(self) -> Remembered | None:
        """What this officer trusts; None before the first packet."""
        if not self._trust.exists() and not self._signed_beyond_init():
            return None
        return trust_state.load(self._trust)

    def _signed_beyond_init(self) -> bool:
        """Whether this officer signed more than the first root and list: then a state was
        remembered, and its absence is a loss, not a beginning."""
        return any(not name.endswith("/1") for name in self._read_signed())

    def review(self, packet: Packet, now: int, root_sha256: str | None) -> Review:
        """Check a packet against this officer's own memory. Raises TrustError.

        `root_sha256`: for an officer who never saw this trust repository: the fingerprint of its
        newest root, received on another way.
        """
        base = self._base(packet, root_sha256)
        staged = _parse_staged(packet)
        root = _next_root(base, staged, packet)
        lines = of_roots(root_of(base) if base else None, root) if "root" in packet.staged else []
        targets = staged.get("targets")
        if isinstance(targets, Targets):
            known = targets_of(base) if base else None
            diff = of_targets(known, targets)
            _check_version(known, targets, packet)
            _check_exact(diff, packet)
            lines += list(diff.lines)
        for role, signed in staged.items():
            _check_times(role, signed, now)
            self._check_not_two(role, signed.version, packet)
        return Review(packet, base, root, tuple(lines))

    def _base(self, packet: Packet, root_sha256: str | None) -> Remembered | None:
        """The published state that the packet builds on, verified from this officer's memory."""
        if not packet.base:
            if self.remembered() is not None:
                raise _refused("the packet starts a new trust, and this desk knows one already")
            return None
        state = self.remembered() or self._own_root(packet) or _first_trust(packet, root_sha256)
        minimum = 1 if is_solo(root_of(state)) else 2
        state, fault = learn_roots(state, packet.base, minimum)
        if fault is None:
            state, fault = learn_targets(state, packet.base)
        if fault is not None:
            raise fault
        newest = hashlib.sha256(state.targets or b"").hexdigest()
        if packet.file.base_targets != newest:
            raise _refused("it does not build on the newest targets that this desk knows")
        return state

    def _own_root(self, packet: Packet) -> Remembered | None:
        """The published form of a root that this officer signed when trust was set up."""
        signed = self._read_signed()
        for name, data in packet.base.items():
            if not name.endswith(".root.json"):
                continue
            found = parse(data, Root, limits.MAX_ROOT_BYTES).signed
            bare = hashlib.sha256(to_bytes(Metadata(found))).hexdigest()
            if signed.get(f"root/{found.version}") == bare:
                return _trusting(data)
        return None

    def _check_not_two(self, role: str, version: int, packet: Packet) -> None:
        """Never two contents for one version."""
        before = self._read_signed().get(f"{role}/{version}")
        if before is not None and before != hashlib.sha256(packet.staged[role]).hexdigest():
            raise TrustError(
                "trust.equivocation",
                f"this key has signed another {role} {version} already",
                why="two contents for one version would show different lists to different hosts",
                do="ask the builder to abandon this packet: the next one takes the next version",
            )

    def record(self, review: Review) -> None:
        """Remember, durably and before any signature leaves the desk, what is being signed."""
        for s in review.packet.file.staged:
            # Again, because another approval may have been recorded since the review.
            self._check_not_two(s.role, s.version, review.packet)
        signed = dict(self._read_signed())
        for s in review.packet.file.staged:
            signed[f"{s.role}/{s.version}"] = s.sha256
        if review.base is not None:
            trust_state.save(self._trust, review.base)
        fsio.write(self._signed, Signed(signed=signed).to_bytes(), mode=0o600)

    def remember(self, review: Review) -> None:
        """Remember the verified base, without a signature (a FAILED verdict)."""
        if review.base is not None:
            trust_state.save(self._trust, review.base)

    def _read_signed(self) -> Mapping[str, str]:
        try:
            return Signed.from_bytes(self._signed.read_bytes()).signed
        except FileNotFoundError:
            return {}


def _first_trust(packet: Packet, root_sha256: str | None) -> Remembered:
    """Trust on a fingerprint: the packet's newest root must be the one the officer was told."""
    newest = max((n for n in packet.base if n.endswith(".root.json")), key=_number, default="")
    data = packet.base.get(newest, b"")
    found = hashlib.sha256(data).hexdigest()
    if root_sha256 is None or root_sha256.lower() != found:
        told = (
            "no fingerprint was given" if root_sha256 is None else f"{root_sha256[:16]} was given"
        )
        raise TrustError(
            "trust.unknown-root",
            "this desk has never seen this trust repository",
            why=f"{told}; the newest root in the packet has sha256 {found}",
            do="compare that fingerprint with one received on another way, then pass it as "
            "--root-sha256",
        )
    return _trusting(data)


def _trusting(data: bytes) -> Remembered:
    root = parse(data, Root, limits.MAX_ROOT_BYTES).signed
    check_first_root(data, RootDemands(1 if is_solo(root) else 2, is_solo(root)))
    return Remembered("desk", data, None, issued(root), is_solo(root))


def _number(name: str) -> int:
    return int(name.split(".", 1)[0]) if name[0].isdigit() else 0


def _parse_staged(packet: Packet) -> dict[str, Root | Targets]:
    out: dict[str, Root | Targets] = {}
    for s in packet.file.staged:
        data = packet.staged[s.role]
        signed: Root | Targets = (
            parse(data, Root, limits.MAX_ROOT_BYTES).signed
            if s.role == "root"
            else parse(data, Targets, limits.MAX_TARGETS_BYTES).signed
        )
        if signed.version != s.version:
            raise _refused(f"its {s.role} is version {signed.version}, it says {s.version}")
        out[s.role] = signed
    return out


def _next_root(base: Remembered | None, staged: dict[str, Root | Targets], packet: Packet) -> Root:
    """The root that will hold after this packet, under rule 3."""
    new = staged.get("root")
    if (new is not None) != (packet.file.kind in ("init", "rotate")):
        raise _refused(f"a packet of kind {packet.file.kind} may not change the root so")
    if new is None:
        if base is None:
            raise _refused("it has neither a published nor a staged root")
        return root_of(base)
    if not isinstance(new, Root):
        raise _refused("its staged root is no root")
    last = root_of(base).version if base else 0
    if new.version != last + 1:
        raise _refused(f"its root is version {new.version}, the next one is {last + 1}")
    solo = is_solo(new)
    check_root(new, RootDemands(1 if solo else 2, solo))
    return new


def _check_version(known: Targets | None, staged: Targets, packet: Packet) -> None:
    """Staged = last + 1, past the versions that were abandoned and may have been signed."""
    last = known.version if known else 0
    expected, abandoned = last + 1, set(packet.file.abandoned)
    while expected in abandoned:
        expected += 1
    if staged.version != expected:
        raise _refused(f"its targets are version {staged.version}, the next one is {expected}")


def _check_exact(diff: TargetsDifference, packet: Packet) -> None:
    """The difference is exactly what the packet says: this manifest, this revocation, or only a
    new date."""
    file = packet.file
    may_add: dict[str, str] = {}
    if file.kind == "manifest":
        may_add = {packet.parsed_manifest().target_path: file.manifest or ""}
    may_revoke = (file.revokes,) if file.kind == "revoke" and file.revokes else ()
    if diff.added != may_add:
        raise _refused("the list it would publish adds something other than it says", diff)
    if diff.changed or diff.restored or diff.other:
        raise _refused("the list it would publish changes what was decided before", diff)
    if diff.revoked != may_revoke or any(s not in may_revoke for s in diff.removed.values()):
        raise _refused("the list it would publish removes something other than it says", diff)


def _check_times(role: str, signed: Root | Targets, now: int) -> None:
    at = issued(signed)
    if abs(at - now) > _CLOCK_SKEW:
        raise _refused(f"its {role} says it was made {abs(at - now) // 3600} hours off this clock")
    if signed.expires.timestamp() - at > _LONGEST:
        raise _refused(f"its {role} would be valid for more than three years")


def _refused(why: str, diff: TargetsDifference | None = None) -> TrustError:
    shown = "\n         ".join([why, *(diff.lines if diff else ())])
    return TrustError(
        "trust.packet",
        "the packet was refused; nothing was signed",
        why=shown,
        do="tell the builder and the other officers; do not sign it elsewhere",
    )
