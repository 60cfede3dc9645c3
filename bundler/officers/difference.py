"""What changes between two versions of officer-signed metadata, in full and in words."""

from __future__ import annotations

from dataclasses import dataclass

from tuf.api.metadata import Root, Targets

from airgap.trust.keys import officer_of
from airgap.trust.metadata import is_solo, issued, revoked
from airgap.trust.rules import officers


@dataclass(frozen=True)
class TargetsDifference:
    """From `base` (None: nothing was published) to `staged`; maps are path -> SHA-256."""

    added: dict[str, str]
    removed: dict[str, str]
    changed: dict[str, str]
    revoked: tuple[str, ...]
    restored: tuple[str, ...]
    other: tuple[str, ...]
    lines: tuple[str, ...]


def _listed(targets: Targets | None) -> dict[str, str]:
    if targets is None:
        return {}
    return {p: t.hashes.get("sha256", "") for p, t in targets.targets.items()}


def of_targets(base: Targets | None, staged: Targets) -> TargetsDifference:
    """Compare two targets, every field of them."""
    before, after = _listed(base), _listed(staged)
    gone = revoked(base) if base else frozenset()
    now = revoked(staged)
    diff = TargetsDifference(
        added={p: s for p, s in after.items() if p not in before},
        removed={p: s for p, s in before.items() if p not in after},
        changed={p: s for p, s in after.items() if p in before and before[p] != s},
        revoked=tuple(sorted(now - gone)),
        restored=tuple(sorted(gone - now)),
        other=_other(base, staged),
        lines=(),
    )
    return TargetsDifference(**{**diff.__dict__, "lines": tuple(_lines(base, staged, diff))})


def _other(base: Targets | None, staged: Targets) -> tuple[str, ...]:
    """Anything else that a target or the metadata carries and no rule names."""
    out = [f"field {k}" for k in staged.unrecognized_fields if not k.startswith("x-sealift-")]
    known = base.targets if base else {}
    for path, info in staged.targets.items():
        if path not in known and (set(info.hashes) != {"sha256"} or info.unrecognized_fields):
            out.append(f"target {path} carries more than a SHA-256")
        if path in known and known[path].to_dict() != info.to_dict():
            out.append(f"target {path} changed")
    if staged.delegations is not None:
        out.append("delegations")
    return tuple(out)


def _lines(base: Targets | None, staged: Targets, d: TargetsDifference) -> list[str]:
    old = f"{base.version}" if base else "none"
    out = [f"targets     version {old} -> {staged.version}"]
    out += [f"  approve   {p}  sha256 {s}" for p, s in sorted(d.added.items())]
    out += [f"  CHANGE    {p}  to sha256 {s}" for p, s in sorted(d.changed.items())]
    out += [f"  remove    {p}  sha256 {s}" for p, s in sorted(d.removed.items())]
    out += [f"  revoke    manifest sha256 {s} (for ever)" for s in d.revoked]
    out += [f"  RESTORE   manifest sha256 {s}" for s in d.restored]
    out += [f"  OTHER     {o}" for o in d.other]
    expires = f"{base.expires:%Y-%m-%d}" if base else "none"
    out.append(f"  expiry    {expires} -> {staged.expires:%Y-%m-%d %H:%M}Z")
    kept = len(staged.targets) - len(d.added) - len(d.changed)
    out.append(f"  unchanged {kept} manifests, {len(revoked(staged)) - len(d.revoked)} revocations")
    return out


def of_roots(base: Root | None, staged: Root) -> list[str]:
    """A root in words: who may decide what, before and after."""
    out = [f"root        version {base.version if base else 'none'} -> {staged.version}"]
    for role in ("root", "targets"):
        now = officers(staged, role)
        was = officers(base, role) if base else {}
        k, n = staged.roles[role].threshold, len(staged.roles[role].keyids)
        out.append(f"  {role:<9} {k} of {n}: {', '.join(sorted(now))}")
        for name in sorted(set(was) - set(now)):
            out.append(f"    loses   {name}")
        for name, key in sorted(now.items()):
            mark = "keeps" if name in was and was[name].keyid == key.keyid else "gains"
            out.append(f"    {mark}   {name}  key {key.keyid}")
    for role in ("timestamp", "snapshot"):
        ids = staged.roles[role].keyids
        owner = ", ".join(officer_of(staged.keys[i]) or "builder" for i in ids)
        out.append(f"  {role:<9} {owner}  key {', '.join(ids)}")
    if is_solo(staged):
        out.append("  SOLO      one person is every officer and the builder")
    out.append(f"  expiry    {staged.expires:%Y-%m-%d %H:%M}Z, made at {issued(staged)}")
    return out
