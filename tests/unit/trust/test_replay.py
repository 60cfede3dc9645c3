"""Old, mixed and withheld metadata: what is refused, and that learning cannot be prevented
(steps 3 to 6 of docs/bundle-format.md section 6)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tuf.api.metadata import DelegatedRole, Delegations

from airgap.errors import IntegrityError
from airgap.trust.decide import DAY
from airgap.trust.learn import targets_of
from bundler.officers.staging import make_snapshot, make_timestamp, revoke_manifest
from tests.lab import T0
from tests.unit.trust.forge import Case, refused, sha, sign
from tests.unit.trust.test_thresholds import next_root, next_targets


def revoking(case: Case) -> Case:
    """The same bundle with the officers' next list, which revokes its manifest."""
    targets = next_targets(case)
    revoke_manifest(targets, sha(case.files.target))
    return case.with_targets(targets, "bob", "carol")


def test_revoked_manifest_is_refused_and_the_list_is_learned(case: Case) -> None:
    decision = revoking(case).decide()
    refused(decision, "trust.revoked")
    assert targets_of(decision.learned) is not None
    refused(case.decide(state=decision.learned), "trust.revoked")


def spoiled_statement(case: Case) -> Case:
    return case.with_statements(b"{}")


def fault_of_the_folder(case: Case) -> Case:
    fault = IntegrityError("bundle.extra", "x", why="x", do="x")
    return replace(case, files=replace(case.files, fault=fault))


def forged_root(case: Case) -> Case:
    return case.root_file(next_root(case), "mallory")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda c: c.file("timestamp.json", None),
        lambda c: c.file("timestamp.json", b"\x00"),
        lambda c: c.file("9.snapshot.json", None),
        lambda c: c.file("2.targets.json", b"junk"),
        lambda c: c.file("1.root.json", None),
        spoiled_statement,
        fault_of_the_folder,
        forged_root,
    ],
)
def test_revocation_cannot_be_suppressed_by_spoiling_the_bundle_around_it(
    case: Case, spoil: object
) -> None:
    decision = spoil(revoking(case)).decide()  # type: ignore[operator]
    assert not hasattr(decision.outcome, "manifest")
    refused(case.decide(state=decision.learned), "trust.revoked")


def test_revocation_cannot_be_taken_back(case: Case) -> None:
    state = revoking(case).decide().learned
    targets = next_targets(case)
    targets.version = 4
    targets.unrecognized_fields["x-sealift-revoked"] = []
    decision = case.with_targets(targets, "alice", "bob").decide(state=state)
    refused(decision, "trust.revocation-withdrawn")
    assert decision.learned == state


def test_revoked_manifest_that_is_listed_again_stays_revoked(case: Case) -> None:
    targets = next_targets(case)
    revoke_manifest(targets, sha(case.files.target))
    targets.targets.update(case.targets.targets)
    refused(case.with_targets(targets, "alice", "bob").decide(), "trust.revoked")


@pytest.mark.parametrize("value", [["00"], ["A" * 64], "x", {"a": 1}, ["b" * 64, "a" * 64], [7]])
def test_list_of_revocations_that_is_none_is_refused(case: Case, value: object) -> None:
    targets = next_targets(case)
    targets.unrecognized_fields["x-sealift-revoked"] = value
    decision = case.with_targets(targets, "alice", "bob").decide()
    refused(decision, "trust.metadata")
    assert decision.learned == case.state


def test_older_list_is_judged_by_the_newer_one_that_the_host_knows(case: Case) -> None:
    newer = next_targets(case)
    state = case.with_targets(newer, "alice", "bob").decide().learned
    decision = case.decide(state=state)
    assert decision.approved().targets_version == 3
    assert decision.learned == state


def test_manifest_that_the_newer_list_no_longer_names_is_refused(case: Case) -> None:
    newer = next_targets(case)
    newer.targets.clear()
    state = case.with_targets(newer, "alice", "bob").decide().learned
    refused(case.decide(state=state), "trust.not-listed")


def test_timestamp_of_version_2_to_the_40_blocks_no_later_bundle(case: Case) -> None:
    """A builder that fast-forwards: nothing it signed is remembered."""
    data = case.files.metadata["2.targets.json"]
    far = case.over(2, data, timestamp_version=2**40, snapshot_version=2**32)
    state = far.decide().learned
    refused(revoking(case).decide(state=state), "trust.revoked")
    case.decide(state=state).approved()


def test_snapshot_of_another_release_is_refused(case: Case) -> None:
    other = next_targets(case)
    other.version = 2
    other.targets.clear()
    snapshot = make_snapshot(sign(other, *case.signers("alice")), 2, 9, T0 + DAY)
    data = sign(snapshot, case.lab.builder)
    stamp = sign(make_timestamp(data, 9, 9, T0 + DAY), case.lab.builder)
    mixed = case.file("9.snapshot.json", data).file("timestamp.json", stamp)
    refused(mixed.file("1.snapshot.json", None).file("2.snapshot.json", None).decide(), MIXED)


MIXED = "trust.mixed"


def test_timestamp_over_another_snapshot_is_refused(case: Case) -> None:
    snapshots = [n for n in case.files.metadata if n.endswith(".snapshot.json")]
    data = case.files.metadata[snapshots[0]]
    version = int(snapshots[0].split(".")[0])
    stamp = sign(make_timestamp(data + b" ", version, 99, T0 + DAY), case.lab.builder)
    refused(case.file("timestamp.json", stamp).decide(), MIXED)


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
@pytest.mark.parametrize("part", ["length", "hashes"])
def test_builders_file_that_names_no_length_or_digest_is_refused(
    case: Case, role: str, part: str
) -> None:
    """TUF allows both to be left out; then the next file could be anything of that version."""
    data = case.files.metadata["2.targets.json"]
    snapshot = make_snapshot(data, 2, 9, T0 + DAY)
    if role == "snapshot":
        setattr(snapshot.meta["targets.json"], part, None)
    signed = sign(snapshot, case.lab.builder)
    timestamp = make_timestamp(signed, 9, 9, T0 + DAY)
    if role == "timestamp":
        setattr(timestamp.snapshot_meta, part, None)
    forged = case.over(2, data).file("9.snapshot.json", signed)
    forged = forged.file("timestamp.json", sign(timestamp, case.lab.builder))
    refused(forged.decide(), "trust.metadata")


def test_second_list_beside_the_right_one_is_refused(case: Case) -> None:
    decision = case.file("3.targets.json", sign(next_targets(case), *case.signers("bob"))).decide()
    refused(decision, "trust.threshold")
    both = case.file("3.targets.json", sign(next_targets(case), *case.signers("bob", "alice")))
    decision = both.decide()
    refused(decision, "trust.mixed")
    learned = targets_of(decision.learned)
    assert learned is not None and learned.version == 3


def test_list_under_another_versions_name_is_refused(case: Case) -> None:
    decision = case.over(7, sign(next_targets(case), *case.signers("alice", "bob"))).decide()
    refused(decision, "trust.metadata")
    assert decision.learned == case.state


def test_list_that_delegates_is_refused(case: Case) -> None:
    targets = next_targets(case)
    key = case.lab.signer("mallory").public_key
    role = DelegatedRole("mallory", [key.keyid], 1, False, paths=["*"])
    targets.delegations = Delegations({key.keyid: key}, {"mallory": role})
    decision = case.with_targets(targets, "alice", "bob").decide()
    refused(decision, "trust.metadata")
    assert decision.learned == case.state


def test_manifest_listed_by_another_digest_only_is_refused(case: Case) -> None:
    targets = next_targets(case)
    info = next(iter(targets.targets.values()))
    import hashlib

    info.hashes = {"sha512": hashlib.sha512(case.files.target).hexdigest()}
    refused(case.with_targets(targets, "alice", "bob").decide(), MIXED)


def test_manifest_of_the_right_digest_and_another_length_is_refused(case: Case) -> None:
    targets = next_targets(case)
    next(iter(targets.targets.values())).length += 1
    refused(case.with_targets(targets, "alice", "bob").decide(), "trust.not-listed")


def test_manifest_that_stands_under_another_path_is_refused(case: Case) -> None:
    targets = next_targets(case)
    targets.targets["tiny/9.manifest.json"] = targets.targets["tiny/1.0.manifest.json"]
    forged = case.with_targets(targets, "alice", "bob")
    moved = replace(forged, files=replace(forged.files, target_path="tiny/9.manifest.json"))
    refused(moved.decide(), MIXED)


def test_manifest_changed_by_one_byte_is_refused(case: Case) -> None:
    data = case.files.target.replace(b'"release":1', b'"release":2')
    changed = replace(case, files=replace(case.files, target=data))
    refused(changed.decide(), "trust.not-listed")


def test_dropping_a_signature_beyond_the_threshold_makes_no_other_content(case: Case) -> None:
    targets = next_targets(case)
    three = sign(targets, *case.signers("alice", "bob", "carol"))
    state = case.over(3, three).decide().learned
    plain = json.loads(three)
    del plain["signatures"][2]
    two = json.dumps(plain).encode()
    decision = case.over(3, two).decide(state=state)
    assert decision.approved().targets_version == 3
    assert decision.learned == state
