"""Who signed, how often, and with whose key. After each refusal: what the host remembers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata, Root, Targets

from airgap.format.policy import STRICT, Policy
from airgap.trust.decide import DAY
from airgap.trust.learn import root_of, targets_of
from airgap.trust.state import Remembered
from tests.lab import T0, fixed_key
from tests.unit.trust.forge import Case, parsed, refused, sign


def next_targets(case: Case) -> Targets:
    targets = case.targets
    targets.version += 1
    targets.unrecognized_fields["x-sealift-issued"] += 1
    return targets


def next_root(case: Case) -> Root:
    root = case.root
    root.version += 1
    root.unrecognized_fields["x-sealift-issued"] += 1
    return root


def test_approved_manifest_is_accepted_and_teaches_root_and_targets(case: Case) -> None:
    decision = case.decide()
    approved = decision.approved()
    assert sorted(approved.verdicts.passed) == ["alice", "bob"]
    assert decision.learned.targets == case.files.metadata["2.targets.json"]
    assert decision.learned.root == case.state.root
    assert approved.valid_until == T0 + 60 * DAY


def test_targets_without_a_signature_are_refused(case: Case) -> None:
    decision = case.with_targets(next_targets(case)).decide()
    refused(decision, "trust.threshold")
    assert decision.learned == case.state


def test_targets_one_short_of_the_threshold_are_refused(case: Case) -> None:
    decision = case.with_targets(next_targets(case), "alice").decide()
    assert "1 of the 2" in refused(decision, "trust.threshold").what
    assert decision.learned == case.state


def test_signatures_of_one_key_in_two_entries_are_refused(case: Case) -> None:
    """TUF names signatures by key id: the same one twice is no metadata at all."""
    data = json.loads(sign(next_targets(case), *case.signers("alice")))
    data["signatures"] *= 2
    decision = case.over(3, json.dumps(data).encode()).decide()
    refused(decision, "trust.metadata")
    assert decision.learned == case.state


def test_signature_under_a_key_id_in_another_case_does_not_count(case: Case) -> None:
    data = json.loads(sign(next_targets(case), *case.signers("alice")))
    again = dict(data["signatures"][0], keyid=data["signatures"][0]["keyid"].upper())
    data["signatures"].append(again)
    decision = case.over(3, json.dumps(data).encode()).decide()
    refused(decision, "trust.threshold")
    assert decision.learned == case.state


def test_one_signature_copied_under_another_officers_key_id_does_not_count(case: Case) -> None:
    data = json.loads(sign(next_targets(case), *case.signers("alice")))
    bob = case.lab.signer("bob").public_key.keyid
    data["signatures"].append({"keyid": bob, "sig": data["signatures"][0]["sig"]})
    decision = case.over(3, json.dumps(data).encode()).decide()
    assert "1 more do not fit" in refused(decision, "trust.threshold").why
    assert decision.learned == case.state


def test_signature_by_a_key_outside_the_root_does_not_count(case: Case) -> None:
    refused(case.with_targets(next_targets(case), "alice", "mallory").decide(), "trust.threshold")


def test_targets_signed_by_the_builder_do_not_count(case: Case) -> None:
    """Wrong role: the builder's key is in the root, but not for targets."""
    data = sign(next_targets(case), case.lab.builder, *case.signers("alice"))
    refused(case.over(3, data).decide(), "trust.threshold")


def test_timestamp_signed_by_officers_is_refused(case: Case) -> None:
    timestamp = parsed(case.files.metadata["timestamp.json"])
    forged = sign(timestamp, *case.signers("alice", "bob", "carol"))
    decision = case.file("timestamp.json", forged).decide()
    refused(decision, "trust.signature")
    assert targets_of(decision.learned) is not None


def test_one_byte_of_a_signature_changed_is_refused(case: Case) -> None:
    data = case.files.metadata["2.targets.json"]
    sig = json.loads(data)["signatures"][0]["sig"].encode()
    flipped = data.replace(sig, (b"0" if sig[:1] != b"0" else b"1") + sig[1:])
    decision = case.over(2, flipped).decide()
    refused(decision, "trust.threshold")
    assert decision.learned == case.state


@pytest.mark.parametrize("sig", ["", "zz", "00", "ab" * 64, 7, None, ["00"], "A" * 9000])
def test_signature_that_is_no_signature_is_refused(case: Case, sig: Any) -> None:
    data = json.loads(sign(next_targets(case), *case.signers("alice", "bob")))
    data["signatures"][0]["sig"] = sig
    decision = case.over(3, json.dumps(data).encode()).decide()
    refused(decision, "trust.threshold")
    assert decision.learned == case.state


# --- roots


def test_rotated_root_is_learned(case: Case) -> None:
    decision = case.root_file(next_root(case), "bob", "carol").decide()
    decision.approved()
    assert root_of(decision.learned).version == 2


@pytest.mark.parametrize("by", [(), ("alice",), ("alice", "mallory")])
def test_root_below_the_old_roots_threshold_is_refused(case: Case, by: tuple[str, ...]) -> None:
    decision = case.root_file(next_root(case), *by).decide()
    refused(decision, "trust.threshold")
    assert decision.learned.root == case.state.root


def test_root_signed_by_the_old_officers_only_is_refused(case: Case) -> None:
    """The new officers must show that they hold their keys (TUF 1.0, 5.3.4)."""
    root = next_root(case)
    for role in ("root", "targets"):
        root.roles[role].keyids = [add(root, "dave"), add(root, "erin")]
    refused(case.root_file(root, "alice", "bob").decide(), "trust.threshold")


def add(root: Root, name: str, **fields: Any) -> str:
    key = fixed_key(name).public_key
    assert isinstance(key, SSlibKey)
    key.unrecognized_fields.update(fields)
    root.keys[key.keyid] = key
    return key.keyid


def test_root_signed_by_new_officers_only_is_refused(case: Case) -> None:
    root = next_root(case)
    for role in ("root", "targets"):
        root.roles[role].keyids = [add(root, "dave"), add(root, "erin")]
    decision = case.root_file(root, "dave", "erin").decide()
    refused(decision, "trust.threshold")
    assert decision.learned.root == case.state.root


def test_skipped_root_is_refused(case: Case) -> None:
    """Root 3 beside root 1: somebody keeps root 2 from this host."""
    root = next_root(case)
    root.version = 3
    decision = case.root_file(root, "alice", "bob").decide()
    assert "3.root.json" in refused(decision, "trust.mixed").why
    assert decision.learned.root == case.state.root
    assert targets_of(decision.learned) is not None


def test_root_3_in_the_file_of_root_2_is_refused(case: Case) -> None:
    root = next_root(case)
    root.version = 3
    data = sign(root, *case.signers("alice", "bob"))
    decision = case.file("2.root.json", data).decide()
    refused(decision, "trust.mixed")
    assert decision.learned.root == case.state.root


def test_root_chain_with_a_hole_below_the_remembered_root_is_refused(case: Case) -> None:
    state = case.root_file(next_root(case), "alice", "bob").decide().learned
    root = next_root(case)
    root.version = 3
    longer = case.file("2.root.json", state.root).root_file(root, "alice", "bob")
    newest = longer.decide().learned
    longer.decide(state=newest).approved()
    refused(longer.file("2.root.json", None).decide(state=newest), "trust.mixed")


def one_key_twice(root: Root) -> None:
    """Bob's entry is alice's key, under bob's key id and in upper case."""
    alice, bob = (fixed_key(n).public_key for n in ("alice", "bob"))
    root.keys[bob.keyid].keyval["public"] = alice.keyval["public"].upper()


def one_officers_two_keys(root: Root) -> None:
    extra = add(root, "alice.second")
    for role in ("root", "targets"):
        root.roles[role].keyids.append(extra)


def key_without_officer(root: Root) -> None:
    root.keys[root.roles["targets"].keyids[0]].unrecognized_fields.clear()


def officer_named_twice_in_another_case(root: Root) -> None:
    extra = add(root, "dave", **{"x-sealift-officer": "Alice"})
    root.roles["targets"].keyids.append(extra)


def officer_keeps_time(root: Root) -> None:
    root.roles["timestamp"].keyids.append(root.roles["targets"].keyids[0])


def builder_approves(root: Root) -> None:
    builder = root.roles["timestamp"].keyids[0]
    root.keys[builder].unrecognized_fields["x-sealift-officer"] = "dave"
    root.roles["targets"].keyids.append(builder)


def no_consistent_snapshot(root: Root) -> None:
    root.consistent_snapshot = False


def role_names_an_absent_key(root: Root) -> None:
    root.roles["targets"].keyids.append("f" * 64)


def threshold_that_nobody_meets(root: Root) -> None:
    root.roles["targets"].threshold = 4


def public_key_of_31_bytes(root: Root) -> None:
    root.keys[root.roles["timestamp"].keyids[0]].keyval["public"] = "ab" * 31


@pytest.mark.parametrize(
    "breach",
    [
        one_key_twice,
        one_officers_two_keys,
        key_without_officer,
        officer_named_twice_in_another_case,
        officer_keeps_time,
        builder_approves,
        no_consistent_snapshot,
        role_names_an_absent_key,
        threshold_that_nobody_meets,
        public_key_of_31_bytes,
    ],
)
def test_root_that_breaks_rule_3_is_refused_however_many_signed(case: Case, breach: Any) -> None:
    root = next_root(case)
    breach(root)
    decision = case.root_file(root, "alice", "bob", "carol").decide()
    refused(decision, "trust.root-rules")
    assert decision.learned.root == case.state.root


@pytest.mark.parametrize("role", ["root", "targets"])
def test_root_with_a_threshold_below_the_hosts_is_refused(case: Case, role: str) -> None:
    root = next_root(case)
    root.roles[role].threshold = 1
    decision = case.root_file(root, "alice", "bob").decide()
    refused(decision, "trust.min-approvals")
    assert decision.learned.root == case.state.root


def test_host_that_wants_three_approvals_refuses_a_root_of_two(case: Case) -> None:
    decision = case.decide(policy=Policy(min_approvals=3))
    refused(decision, "trust.min-approvals")
    assert decision.learned.root == case.state.root


def test_two_old_officers_cannot_raise_the_threshold_past_a_host_that_wants_three(
    case: Case,
) -> None:
    """Else two could bring a root of three made-up people, and be three."""
    root = next_root(case)
    ids = [add(root, n) for n in ("dave", "erin", "frank")]
    for role in ("root", "targets"):
        root.roles[role].keyids, root.roles[role].threshold = ids, 3
    forged = case.root_file(root, "alice", "bob", "dave", "erin", "frank")
    decision = forged.decide(policy=Policy(min_approvals=3))
    refused(decision, "trust.min-approvals")
    assert decision.learned.root == case.state.root


# --- solo


def solo_root(case: Case, version: int = 2) -> Root:
    root = next_root(case)
    root.version = version
    root.unrecognized_fields["x-sealift-solo"] = True
    return root


def test_solo_root_is_refused_by_a_host_that_was_not_told_to_accept_it(case: Case) -> None:
    decision = case.root_file(solo_root(case), "alice", "bob").decide()
    refused(decision, "trust.solo")
    assert decision.learned.root == case.state.root


def test_acceptance_of_solo_lapses_with_the_first_root_that_has_officers(case: Case) -> None:
    solo = sign(solo_root(case), *case.signers("alice", "bob"))
    state = Remembered("host", solo, None, 0, accept_solo=True)
    officers = next_root(case)
    officers.version = 3
    grown = case.file("2.root.json", solo).root_file(officers, "alice", "bob")
    decision = grown.decide(state=state)
    decision.approved()
    assert not decision.learned.accept_solo
    back = grown.root_file(solo_root(case, 4), "alice", "bob").decide(state=decision.learned)
    refused(back, "trust.solo")
    assert root_of(back.learned).version == 3


def test_solo_flag_that_is_not_true_itself_is_no_solo(case: Case) -> None:
    root = next_root(case)
    root.unrecognized_fields["x-sealift-solo"] = "yes"
    root.roles["targets"].threshold = 1
    state = Remembered("host", case.state.root, None, 0, accept_solo=True)
    refused(case.root_file(root, "alice", "bob").decide(state=state), "trust.min-approvals")


# --- equivocation


def test_two_contents_for_one_targets_version_are_equivocation(case: Case) -> None:
    state = case.decide().learned
    other = case.targets
    other.targets.clear()
    decision = case.with_targets(other, "bob", "carol").decide(state=state)
    refused(decision, "trust.equivocation")
    assert decision.learned == state


def test_two_contents_for_one_root_version_are_equivocation(case: Case) -> None:
    root = case.root
    root.roles["targets"].keyids.reverse()
    decision = case.root_file(root, "alice", "bob").decide()
    refused(decision, "trust.equivocation")
    assert decision.learned.root == case.state.root


def spelled_anew(data: bytes) -> bytes:
    """The same signed content with white space and a signature that nobody asked for."""
    plain = json.loads(data)
    plain["signatures"].append({"keyid": "e" * 64, "sig": "00"})
    return json.dumps(plain, indent=1).encode()


def test_carrier_who_spells_targets_anew_cannot_turn_the_host_against_the_real_ones(
    case: Case,
) -> None:
    spoiled = case.file("2.targets.json", spelled_anew(case.files.metadata["2.targets.json"]))
    first = spoiled.decide()
    refused(first, "trust.mixed")
    assert targets_of(first.learned) is not None
    case.decide(state=first.learned).approved()


def test_carrier_who_spells_a_root_anew_cannot_turn_the_host_against_the_real_one(
    case: Case,
) -> None:
    genuine = case.root_file(next_root(case), "alice", "bob")
    spoiled = genuine.file("2.root.json", spelled_anew(genuine.files.metadata["2.root.json"]))
    learned = spoiled.decide().learned
    assert root_of(learned).version == 2
    genuine.decide(state=learned).approved()


def test_metadata_of_tuf_itself_parses_as_before() -> None:
    """tuf is pinned: these tests hold the adapter to this version."""
    import tuf

    assert tuf.__version__ == "7.0.1"
    assert Metadata is not None
    assert STRICT.min_approvals == 2
