"""Metadata that is JSON in a way, or TUF in a way: refused, and nothing else happens."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from airgap import limits
from airgap.errors import SealiftError, TrustError
from airgap.trust.decide import Approved
from airgap.trust.metadata import parse, revoked
from tests.unit.trust.forge import Case, refused, sign
from tests.unit.trust.test_thresholds import next_root, next_targets

KINDS: dict[str, tuple[Any, int]] = {
    "1.root.json": (Root, limits.MAX_ROOT_BYTES),
    "2.targets.json": (Targets, limits.MAX_TARGETS_BYTES),
    "timestamp.json": (Timestamp, limits.MAX_TIMESTAMP_BYTES),
    "2.snapshot.json": (Snapshot, limits.MAX_SNAPSHOT_BYTES),
}


@pytest.mark.parametrize("name", ["1.root.json", "2.targets.json", "timestamp.json"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: b"\xef\xbb\xbf" + d,
        lambda d: d + b"{}",
        lambda d: d[:-1],
        lambda d: d.replace(b'"version":', b'"version":1,"version":', 1),
        lambda d: d.replace(b'"version":', b'"version":1.0,"v":', 1),
        lambda d: d.replace(b'"version":', b'"version":1e999,"v":', 1),
        lambda d: d.replace(b'"version":', b'"x":NaN,"version":', 1),
        lambda d: d.replace(b'"version":', b'"x":"\\ud800","version":', 1),
        lambda d: d.replace(b'"version":', b'"x":' + b"[" * 40 + b"]" * 40 + b',"version":', 1),
        lambda d: d.replace(b'"version":', b'"x":99999999999999999999,"version":', 1),
        lambda d: d.replace(b'"spec_version":"1.', b'"spec_version":"2.', 1),
        lambda d: d.replace(b'"_type":"', b'"_type":"mirrors","_":"', 1),
        lambda d: b" " * limits.MAX_TARGETS_BYTES + d,
        lambda _: b"[]",
        lambda _: b"null",
        lambda _: b"",
        lambda _: b"[" * 100_000,
    ],
)
def test_file_that_two_readers_could_read_differently_is_refused(
    case: Case, name: str, spoil: Any
) -> None:
    kind, most = KINDS[name]
    with pytest.raises(TrustError) as e:
        parse(spoil(case.files.metadata[name]), kind, most)
    assert e.value.id == "trust.metadata"


def test_one_kind_in_the_place_of_another_is_refused(case: Case) -> None:
    for name, (kind, most) in KINDS.items():
        for other, data in case.files.metadata.items():
            if other != name and KINDS.get(other, (None,))[0] is not kind:
                with pytest.raises(TrustError):
                    parse(data, kind, most)


@pytest.mark.parametrize("role", ["root", "targets"])
def test_field_of_ours_that_is_not_known_yet_is_refused(case: Case, role: str) -> None:
    """It may restrict what an older reader would allow."""
    signed: Any = next_root(case) if role == "root" else next_targets(case)
    signed.unrecognized_fields["x-sealift-only-for"] = ["north"]
    forged = (
        case.root_file(signed, "alice", "bob")
        if role == "root"
        else case.with_targets(signed, "alice", "bob")
    )
    refused(forged.decide(), "trust.metadata")


def test_field_of_ours_on_a_key_a_role_or_a_target_is_refused(case: Case) -> None:
    root = next_root(case)
    next(iter(root.keys.values())).unrecognized_fields["x-sealift-rank"] = 2
    refused(case.root_file(root, "alice", "bob").decide(), "trust.metadata")
    root = next_root(case)
    root.roles["root"].unrecognized_fields["x-sealift-rank"] = 2
    refused(case.root_file(root, "alice", "bob").decide(), "trust.metadata")
    targets = next_targets(case)
    next(iter(targets.targets.values())).unrecognized_fields["custom"] = {"x-sealift-a": 1}
    refused(case.with_targets(targets, "alice", "bob").decide(), "trust.metadata")


def test_foreign_field_is_ignored_as_tuf_asks(case: Case) -> None:
    targets = next_targets(case)
    targets.unrecognized_fields["comment"] = "hello"
    case.with_targets(targets, "alice", "bob").decide().approved()


@pytest.mark.parametrize("field", ["threshold", "version"])
@pytest.mark.parametrize("value", [0, -1, True, "2", None, 2**60])
def test_number_that_is_none_is_refused(case: Case, field: str, value: Any) -> None:
    data = json.loads(sign(next_root(case), *case.signers("alice", "bob")))
    if field == "version":
        data["signed"]["version"] = value
    else:
        data["signed"]["roles"]["targets"]["threshold"] = value
    decision = case.file("2.root.json", json.dumps(data).encode()).decide()
    assert isinstance(decision.outcome, SealiftError)
    assert decision.outcome.exit_code == 4
    assert decision.learned.root == case.state.root


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_bytes_make_the_decision_fail_in_another_way(case: Case, data: st.DataObject) -> None:
    """Any bytes in any file: a refusal of ours, or the very same approval; never a crash."""
    name = data.draw(st.sampled_from(sorted(case.files.metadata)))
    old = case.files.metadata[name]
    at = data.draw(st.integers(0, len(old) - 1))
    new = data.draw(st.binary(max_size=6))
    cut = data.draw(st.integers(0, 6))
    spoiled = case.file(name, old[:at] + new + old[at + cut :])
    outcome = spoiled.decide().outcome
    if isinstance(outcome, Approved):
        assert outcome.digest == case.decide().approved().digest
    else:
        assert outcome.exit_code == 4


def test_no_revocations_written_is_none(case: Case) -> None:
    targets = next_targets(case)
    del targets.unrecognized_fields["x-sealift-revoked"]
    assert revoked(targets) == frozenset()
