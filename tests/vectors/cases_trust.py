"""Vectors of steps 2 to 6: trust folder, root chain, lists, builder's files, statements, time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace

from airgap.format.policy import Policy
from bundler.officers.staging import revoke_manifest
from tests.lab import fixed_key
from tests.vectors.model import Host, Vector, changed
from tests.vectors.pieces import (
    DAY,
    NOW,
    Link,
    content,
    medium,
    root,
    sign,
    solo_root,
    statement,
    targets_of,
)

BASE = medium()
HOST = Host(sign(root(), "alice", "bob"))
META = "trust/metadata"
ROOT_2 = sign(root(2), "alice", "bob", "carol")
NOTHING_LEARNED = HOST


def after(**changes: object) -> Host:
    """What the host remembers, where it is not the default."""
    return replace(Vector("", "").learned(), **changes)  # type: ignore[arg-type]


def accepted() -> Iterator[Vector]:
    yield Vector("accept-two-of-three", "none: the plain good case")
    yield Vector(
        "accept-solo",
        "none: one person is every officer, and this host was told to accept that",
        medium=replace(
            BASE,
            roots={1: sign(solo_root(), "alice")},
            builder="alice",
            statements=(statement("alice", BASE.manifest),),
        ).with_targets(targets_of({BASE.path: BASE.manifest}), "alice"),
        host=Host(sign(solo_root(), "alice"), clock_floor=NOW - 10 * DAY, accept_solo=True),
        after=Host(
            sign(solo_root(), "alice"),
            sign(targets_of({BASE.path: BASE.manifest}), "alice"),
            NOW,
            accept_solo=True,
        ),
    )
    yield Vector(
        "accept-root-chain",
        "none: officers changed twice, and the bundle carries both steps",
        medium=replace(BASE, roots=_chain()),
        after=after(root=_chain()[3]),
    )
    yield Vector(
        "accept-older-list-than-known",
        "none: the host knows a newer list, judges by that one, and it still names the manifest",
        host=replace(HOST, targets=_newer(), clock_floor=NOW + 1),
        after=replace(HOST, targets=_newer(), clock_floor=NOW + 1),
    )
    yield Vector(
        "accept-last-second",
        "none: one second before the builder's transit time ends",
        clock=BASE.expires - 1,
    )
    yield Vector(
        "accept-in-grace",
        "none: transit time is over, and the host's policy grants the builder five days",
        host=replace(HOST, policy=Policy(grace_days=5)),
        clock=BASE.expires + 4 * DAY,
        after=replace(after(), policy=Policy(grace_days=5)),
    )


def _chain() -> dict[int, bytes]:
    second = root(2, names=("bob", "carol", "dave"))
    third = root(3, names=("alice", "bob", "dave"))
    return {
        1: sign(root(), "alice", "bob"),
        2: sign(second, "bob", "carol"),
        3: sign(third, "bob", "dave"),
    }


def _newer() -> bytes:
    return sign(targets_of({BASE.path: BASE.manifest}, 3, NOW + 1), "bob", "carol")


def folder() -> Iterator[Vector]:
    """Step 2."""
    yield Vector(
        "trust-extra-file",
        "a file that nobody signed lies beside the metadata",
        *("2", 3, "bundle.extra"),
        tree=changed(BASE, **{f"{META}/policy.json": b"{}\n"}),
    )
    yield Vector(
        "trust-link",
        "timestamp.json is a link: the name is checked, another file is read",
        *("2", 3, "bundle.extra"),
        tree=changed(BASE, **{f"{META}/timestamp.json": Link("2.snapshot.json")}),
    )
    yield Vector(
        "trust-two-manifests",
        "a second manifest lies beside the approved one",
        *("2", 3, "bundle.targets"),
        tree=changed(BASE, **{"trust/targets/tiny/2.0.manifest.json": BASE.manifest}),
    )


def roots() -> Iterator[Vector]:
    """Step 3."""
    step = ("3", 4)
    yield Vector(
        "root-one-signature-short",
        "one of two needed officers signed the next root",
        *(*step, "trust.threshold"),
        medium=replace(BASE, roots={**BASE.roots, 2: sign(root(2), "carol")}),
    )
    yield Vector(
        "root-one-key-twice",
        "the next root counts one person's key as two: under two ids, in another case",
        *(*step, "trust.root-rules"),
        medium=replace(BASE, roots={**BASE.roots, 2: _key_twice()}),
    )
    yield Vector(
        "root-lower-threshold",
        "the next root lets one officer decide, fewer than this host wants",
        *(*step, "trust.min-approvals"),
        medium=replace(BASE, roots={**BASE.roots, 2: sign(root(2, 1), "alice", "bob")}),
    )
    yield Vector(
        "root-becomes-solo",
        "officers turn into one person without this host's consent",
        *(*step, "trust.solo"),
        medium=replace(BASE, roots={**BASE.roots, 2: sign(root(2, solo=True), "alice", "bob")}),
    )
    yield Vector(
        "root-other-content",
        "another root under the version that the host knows: other people's, or two contents",
        *(*step, "trust.equivocation"),
        medium=replace(BASE, roots={1: sign(root(names=("alice", "bob", "erin")), "alice", "bob")}),
    )


def _key_twice() -> bytes:
    made = root(2)
    alice, bob = (fixed_key(n).public_key for n in ("alice", "bob"))
    made.keys[bob.keyid].keyval["public"] = alice.keyval["public"].upper()
    return sign(made, "alice", "bob", "carol")


def lists() -> Iterator[Vector]:
    """Step 4."""
    signed = targets_of({BASE.path: BASE.manifest})
    good = BASE.targets[2]
    twice = good.replace(b'"version":2', b'"version":1,"version":2')
    withdrawn = targets_of({}, 3)
    revoke = targets_of({BASE.path: BASE.manifest}, 2)
    revoke_manifest(revoke, hashlib.sha256(BASE.manifest).hexdigest())
    knows = replace(HOST, targets=sign(revoke, "alice", "bob"), clock_floor=NOW)
    step = ("4", 4)
    yield Vector(
        "targets-one-signature-short",
        "one of two needed officers signed the list",
        *(*step, "trust.threshold"),
        medium=BASE.with_targets(signed, "alice"),
        after=NOTHING_LEARNED,
    )
    yield Vector(
        "targets-signed-by-builder",
        "the builder's key stands in for the second officer",
        *(*step, "trust.threshold"),
        medium=BASE.with_targets(signed, "alice", "builder"),
        after=NOTHING_LEARNED,
    )
    yield Vector(
        "targets-signature-copied",
        "one officer's signature is repeated under the other's key id",
        *(*step, "trust.threshold"),
        medium=replace(BASE, targets={2: _copied(good)}),
        after=NOTHING_LEARNED,
    )
    yield Vector(
        "targets-duplicate-key",
        "JSON with one key twice: two readers read two lists",
        *(*step, "trust.metadata"),
        medium=replace(BASE, targets={2: twice}),
        after=NOTHING_LEARNED,
    )
    yield Vector(
        "targets-other-content",
        "two contents for one version: this host was shown another list 2 before",
        *(*step, "trust.equivocation"),
        host=replace(HOST, targets=sign(targets_of({}), "bob", "carol"), clock_floor=NOW),
        after=replace(HOST, targets=sign(targets_of({}), "bob", "carol"), clock_floor=NOW),
    )
    yield Vector(
        "targets-revocation-withdrawn",
        "a newer list no longer revokes what the one before revoked",
        *(*step, "trust.revocation-withdrawn"),
        medium=BASE.with_targets(withdrawn, "alice", "bob"),
        host=knows,
        after=knows,
    )


def _copied(data: bytes) -> bytes:
    plain = json.loads(data)
    plain["signatures"][1]["sig"] = plain["signatures"][0]["sig"]
    return json.dumps(plain, separators=(",", ":"), sort_keys=True).encode()


def builders() -> Iterator[Vector]:
    """Steps 5a and 5b."""
    other = sign(targets_of({}), "alice", "bob")
    yield Vector(
        "builder-signature-of-an-officer",
        "officers' keys cannot keep the builder's time",
        *("5a", 4, "trust.signature"),
        medium=replace(BASE, builder="alice"),
    )
    yield Vector(
        "builder-files-of-another-release",
        "snapshot and timestamp belong to another list: an old bundle's parts mixed in",
        *("5a", 4, "trust.mixed"),
        medium=replace(BASE, over=other),
    )
    yield Vector(
        "builder-root-beyond-a-gap",
        "root 3 lies there and root 2 does not: a rotation is kept from this host",
        *("5b", 4, "trust.mixed"),
        medium=replace(BASE, roots={**BASE.roots, 3: sign(root(3), "alice", "bob")}),
    )
    yield Vector(
        "builder-no-timestamp",
        "without a timestamp nothing says how old the bundle may be",
        *("5a", 4, "trust.incomplete"),
        tree=changed(BASE, **{f"{META}/timestamp.json": None}),
    )


def times() -> Iterator[Vector]:
    """Steps 5a, 5c and 6d."""
    floor = replace(HOST, targets=_newer_at(NOW + 61 * DAY), clock_floor=NOW + 61 * DAY)
    yield Vector(
        "time-transit-over",
        "the builder's transit time ends in this second",
        *("5a", 4, "trust.expired"),
        clock=BASE.expires,
    )
    yield Vector(
        "time-clock-set-back",
        "the clock is set back before the end, but officers signed something later than it says",
        *("5a", 4, "trust.expired"),
        host=floor,
        after=floor,
    )
    yield Vector(
        "time-officers-silent",
        "everything is still valid, but this host's limit since officers last signed is over",
        *("5c", 4, "trust.expired"),
        medium=replace(BASE, expires=NOW + 170 * DAY),
        host=replace(HOST, policy=Policy(max_trust_age_days=30)),
        clock=NOW + 30 * DAY,
        after=replace(after(), policy=Policy(max_trust_age_days=30)),
    )
    ends = content().manifest(not_after=NOW + 20 * DAY)
    yield Vector(
        "time-manifest-over",
        "the manifest's own end has come",
        *("6d", 4, "trust.expired"),
        medium=BASE.with_manifest(ends),
        clock=NOW + 20 * DAY,
    )


def _newer_at(at: int) -> bytes:
    return sign(targets_of({BASE.path: BASE.manifest}, 3, at), "bob", "carol")


def manifests() -> Iterator[Vector]:
    """Steps 6a to 6c."""
    revoked = targets_of({BASE.path: BASE.manifest}, 3, NOW + 1)
    revoke_manifest(revoked, hashlib.sha256(BASE.manifest).hexdigest())
    knows = replace(HOST, targets=sign(revoked, "alice", "carol"), clock_floor=NOW + 1)
    one, path = statement("alice", BASE.manifest), "tiny/2.0.manifest.json"
    where = f"trust/targets/{BASE.path}"
    other = BASE.manifest.replace(b'"release":1', b'"release":7')
    loose = BASE.manifest.replace(b'"release":1', b'"release": 1')
    yield Vector(
        "manifest-changed",
        "the manifest was changed after its approval",
        *("6a", 4, "trust.not-listed"),
        tree=changed(BASE, **{where: other}),
    )
    yield Vector(
        "manifest-revoked",
        "an older bundle, whole and signed, whose manifest was revoked since",
        *("6a", 4, "trust.revoked"),
        host=knows,
        after=knows,
    )
    yield Vector(
        "manifest-under-another-name",
        "officers listed its digest under another version's path",
        *("6b", 4, "trust.mixed"),
        medium=BASE.with_manifest(BASE.manifest, at=path),
    )
    listed = BASE.with_targets(targets_of({BASE.path: loose}), "alice", "bob")
    yield Vector(
        "manifest-not-canonical",
        "a second spelling of the same manifest",
        *("6b", 3, "format.not-canonical"),
        medium=listed,
        tree=changed(listed, **{where: loose}),
    )
    yield Vector(
        "statement-missing",
        "two signed the list, but only one made a statement on this manifest",
        *("6c", 4, "trust.approvals"),
        medium=replace(BASE, statements=(one,)),
    )
    yield Vector(
        "statement-of-another-manifest",
        "bob's statement is real, but about another manifest",
        *("6c", 4, "trust.approvals"),
        medium=replace(BASE, statements=(one, statement("bob", other))),
    )
    yield Vector(
        "statement-failed",
        "bob signed the list and yet states that he refuses the manifest",
        *("6c", 4, "trust.approvals"),
        medium=replace(BASE, statements=(one, statement("bob", BASE.manifest, result="FAILED"))),
    )
    yield Vector(
        "statement-twice",
        "alice makes two statements and counts as two",
        *("6c", 4, "trust.statement"),
        medium=replace(BASE, statements=(one, statement("alice", BASE.manifest, comment="again"))),
    )
    yield Vector(
        "statement-in-anothers-name",
        "alice's key signs a statement of bob's",
        *("6c", 4, "trust.statement"),
        medium=replace(BASE, statements=(one, statement("bob", BASE.manifest, by="alice"))),
    )
    yield Vector(
        "statement-other-report",
        "the officers read two reports: each was shown what pleases",
        *("6c", 4, "trust.statement"),
        medium=replace(BASE, statements=(one, statement("bob", BASE.manifest, report=b"nice"))),
    )


def all_of_them() -> list[Vector]:
    """In the order of the steps."""
    groups = (accepted, folder, roots, lists, builders, times, manifests)
    return [v for group in groups for v in group()]
