"""What a bundle's trust metadata teaches, before anything else of it is judged.

A valid newer root or targets is worth keeping even when the bundle is refused: otherwise whoever
carries a revocation could suppress it by spoiling the bundle around it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from tuf.api.metadata import Metadata, Root, Targets

from airgap import limits
from airgap.errors import TrustError
from airgap.format import canonical
from airgap.trust.metadata import check_threshold, is_solo, issued, parse, revoked
from airgap.trust.rules import RootDemands, check_root
from airgap.trust.state import Remembered

_TARGETS_NAME = re.compile(r"([1-9][0-9]{0,9})\.targets\.json")


def demands_of(state: Remembered, min_approvals: int) -> RootDemands:
    """What is demanded of the next root, by this host's own rules and memory."""
    return RootDemands(min_approvals, state.accept_solo)


def root_of(state: Remembered) -> Root:
    """The remembered root, parsed (its bytes were checked when they were remembered)."""
    return parse(state.root, Root, limits.MAX_ROOT_BYTES).signed


def targets_of(state: Remembered) -> Targets | None:
    """The remembered targets, parsed."""
    if state.targets is None:
        return None
    return parse(state.targets, Targets, limits.MAX_TARGETS_BYTES).signed


def learn_roots(
    state: Remembered, metadata: Mapping[str, bytes], min_approvals: int
) -> tuple[Remembered, TrustError | None]:
    """Step 3: walk the root chain from the remembered root as far as it is valid (TUF 1.0, 5.3).

    Returns the newest state reached, and what stopped the walk if it was not the chain's end.
    """
    fault = _other_root(state, metadata)
    try:
        current = root_of(state)
        check_root(current, demands_of(state, min_approvals))
        for version in range(current.version + 1, current.version + 1 + limits.MAX_ROOT_ROTATIONS):
            data = metadata.get(f"{version}.root.json")
            if data is None:
                break
            current = _next_root(current, data, demands_of(state, min_approvals))
            state = state.with_root(data, issued(current), solo=is_solo(current))
    except TrustError as e:
        return state, fault or e
    return state, fault


def _next_root(current: Root, data: bytes, demands: RootDemands) -> Root:
    """The next root, signed by the last one's officers and by its own (TUF 1.0, 5.3.4-5.3.5)."""
    found = parse(data, Root, limits.MAX_ROOT_BYTES)
    new = found.signed
    if new.version != current.version + 1:
        raise TrustError(
            "trust.mixed",
            f"the file of root {current.version + 1} holds root {new.version}",
            why="a root may not be skipped or repeated",
            do="copy the bundle again; if it is refused again, ask the builder for a new one",
        )
    check_threshold(current, "root", found, f"root {new.version}")
    check_threshold(new, "root", found, f"root {new.version}")
    check_root(new, demands)
    return new


def check_first_root(data: bytes, demands: RootDemands) -> Root:
    """A root that a person brings as the first one: self-signed up to its threshold, rule 3."""
    found: Metadata[Root] = parse(data, Root, limits.MAX_ROOT_BYTES)
    check_threshold(found.signed, "root", found, f"root {found.signed.version}")
    check_root(found.signed, demands)
    return found.signed


def learn_targets(
    state: Remembered, metadata: Mapping[str, bytes]
) -> tuple[Remembered, TrustError | None]:
    """Step 4: take the newest valid targets among `metadata`, whatever the builder's files say.

    The same version with another digest is equivocation; an older one teaches nothing.
    Revocations are append-only. Expired targets still teach: what they revoke stays revoked.
    """
    root = root_of(state)
    names = sorted((int(m[1]), n) for n in metadata if (m := _TARGETS_NAME.fullmatch(n)))
    fault: TrustError | None = None
    for version, name in names:
        try:
            state = _learn_one(state, root, version, metadata[name])
        except TrustError as e:
            # One bad file must not hide the good one beside it.
            fault = fault or e
    return state, fault


def _learn_one(state: Remembered, root: Root, version: int, data: bytes) -> Remembered:
    found = parse(data, Targets, limits.MAX_TARGETS_BYTES)
    known = targets_of(state)
    if known is not None and found.signed.version < known.version:
        return state
    check_threshold(root, "targets", found, f"targets {version}")
    _check_shape(found.signed, version)
    if known is not None:
        if found.signed.version == known.version:
            _check_same("targets", version, state.targets or b"", data)
            return state
        missing = revoked(known) - revoked(found.signed)
        if missing:
            raise TrustError(
                "trust.revocation-withdrawn",
                f"targets {version} no longer revoke what targets {known.version} revoked",
                why=f"{len(missing)} revoked manifests are missing, first {min(missing)[:12]}",
                do="ask the officers: a revocation is never taken back, a new version is approved",
            )
    return state.with_targets(data, issued(found.signed))


def _check_shape(targets: Targets, version: int) -> None:
    why = None
    if targets.version != version:
        why = f"the file of targets {version} holds targets {targets.version}"
    elif targets.delegations is not None:
        why = "it delegates to others, which this format does not know"
    if why is not None:
        raise TrustError(
            "trust.metadata",
            f"targets {version} were refused",
            why=why,
            do="ask the officers for targets made by `sealift review`",
        )
    revoked(targets)


def signed_digest(data: bytes) -> str:
    """SHA-256 of the part of a metadata file that is signed, in TUF's canonical form.

    The rest of the file is not: whoever carries it can write it anew, drop a signature beyond the
    threshold or add white space. If that counted as another content, a carrier could make a host
    refuse the officers' own file later.
    """
    plain = canonical.decode(data, max_bytes=limits.MAX_TARGETS_BYTES)
    return hashlib.sha256(Metadata.from_dict(plain).signed_bytes).hexdigest()


def _check_same(role: str, version: int, ours: bytes, theirs: bytes) -> None:
    if ours == theirs:
        return
    known, brought = signed_digest(ours), signed_digest(theirs)
    if known != brought:
        raise equivocation(role, version, known, brought)


def _other_root(state: Remembered, metadata: Mapping[str, bytes]) -> TrustError | None:
    """Another root under the version that is remembered: other people's, or two contents."""
    version = root_of(state).version
    data = metadata.get(f"{version}.root.json")
    if data is None or data == state.root:
        return None
    try:
        parse(data, Root, limits.MAX_ROOT_BYTES)
        _check_same("root", version, state.root, data)
    except TrustError as e:
        return e
    return None


def equivocation(role: str, version: int, ours: str, theirs: str) -> TrustError:
    """Two contents for one version: somebody shows different lists to different hosts."""
    return TrustError(
        "trust.equivocation",
        f"this is another {role} {version} than the one this host knows",
        why=f"known {ours[:16]}, brought {theirs[:16]}: one version never has two contents",
        do="keep the medium and tell the officers: keys may have been misused",
    )
