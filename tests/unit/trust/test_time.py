"""When an approval is over, whose clock counts, and what grace covers (steps 1 and 5c)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airgap.format.policy import STRICT, Policy
from airgap.trust.decide import DAY
from airgap.trust.learn import targets_of
from bundler.officers.staging import when
from tests.lab import T0
from tests.unit.trust.forge import Case, refused
from tests.unit.trust.test_thresholds import next_root, next_targets

TRANSIT = T0 + 60 * DAY


def test_bundle_is_good_until_the_second_before_its_end_and_not_a_second_longer(case: Case) -> None:
    case.decide(clock=TRANSIT - 1).approved()
    refused(case.decide(clock=TRANSIT), "trust.expired")


def test_expired_bundle_still_teaches_what_officers_signed(case: Case) -> None:
    decision = case.decide(clock=TRANSIT + DAY)
    refused(decision, "trust.expired")
    assert decision.learned.targets == case.files.metadata["2.targets.json"]


def test_expired_targets_are_refused_whatever_the_builder_says(case: Case) -> None:
    late = next_targets(case)
    late.expires = when(T0 + DAY)
    forged = case.with_targets(late, "alice", "bob", expires=T0 + 900 * DAY)
    forged.decide(clock=T0 + DAY - 1).approved()
    refused(forged.decide(clock=T0 + DAY), "trust.expired")


def test_expired_root_is_refused(case: Case) -> None:
    root = next_root(case)
    root.expires = when(T0 + DAY)
    forged = case.root_file(root, "alice", "bob")
    forged.decide(clock=T0 + DAY - 1).approved()
    refused(forged.decide(clock=T0 + DAY), "trust.expired")


def test_expired_root_in_the_middle_of_the_chain_is_passed(case: Case) -> None:
    """TUF 1.0, 5.3.10: only the last root's expiry counts, or no old host could follow."""
    old = next_root(case)
    old.expires = when(T0 - DAY)
    new = next_root(case)
    new.version = 3
    chain = case.root_file(old, "alice", "bob").root_file(new, "alice", "bob")
    assert chain.decide().approved().root_version == 3


def test_the_manifests_own_end_counts(case: Case) -> None:
    end = T0 + 300 * DAY
    targets = next_targets(case)
    targets.expires = when(T0 + 900 * DAY)
    root = next_root(case)
    root.expires = when(T0 + 900 * DAY)
    forged = case.with_targets(targets, "alice", "bob", expires=T0 + 900 * DAY)
    forged = forged.root_file(root, "alice", "bob")
    policy = Policy(max_trust_age_days=900)
    forged.decide(clock=end - 1, policy=policy).approved()
    refused(forged.decide(clock=end, policy=policy), "trust.expired")


def test_clock_set_back_is_raised_to_what_officers_last_signed(case: Case) -> None:
    state = replace(case.state, clock_floor=TRANSIT)
    refused(case.decide(clock=0, state=state), "trust.expired")


def test_newer_root_or_targets_raise_the_floor_and_the_builders_times_never_do(case: Case) -> None:
    root = next_root(case)
    root.unrecognized_fields["x-sealift-issued"] = T0 + 5
    assert case.root_file(root, "alice", "bob").decide().learned.clock_floor == T0 + 5
    builder = case.over(2, case.files.metadata["2.targets.json"], expires=T0 + 9000 * DAY)
    assert builder.decide().learned.clock_floor == case.decide().learned.clock_floor


def test_older_root_or_list_never_lowers_the_floor(case: Case) -> None:
    state = replace(case.state, clock_floor=T0 + 7)
    assert case.decide(state=state).learned.clock_floor == T0 + 7


def test_floor_raised_by_the_bundle_itself_counts_for_it(case: Case) -> None:
    """A list that says it was made after the bundle's end proves that the clock is wrong."""
    targets = next_targets(case)
    targets.unrecognized_fields["x-sealift-issued"] = TRANSIT + 1
    refused(case.with_targets(targets, "alice", "bob").decide(clock=T0), "trust.expired")


def test_grace_lets_the_builders_files_be_late_and_says_so(case: Case) -> None:
    policy = Policy(grace_days=5)
    assert not case.decide(clock=TRANSIT - 1, policy=policy).approved().in_grace
    late = case.decide(clock=TRANSIT + 5 * DAY - 1, policy=policy).approved()
    assert late.in_grace and late.valid_until == TRANSIT + 5 * DAY
    refused(case.decide(clock=TRANSIT + 5 * DAY, policy=policy), "trust.expired")


def test_grace_never_covers_what_officers_signed(case: Case) -> None:
    policy = Policy(grace_days=90)
    targets = next_targets(case)
    targets.expires = when(T0 + DAY)
    forged = case.with_targets(targets, "alice", "bob")
    refused(forged.decide(clock=T0 + DAY, policy=policy), "trust.expired")
    root = next_root(case)
    root.expires = when(T0 + DAY)
    forged = case.root_file(root, "alice", "bob")
    refused(forged.decide(clock=T0 + DAY, policy=policy), "trust.expired")


def test_hosts_limit_since_officers_last_signed_counts_from_the_list_not_from_the_root(
    case: Case,
) -> None:
    policy = Policy(max_trust_age_days=10)
    made = targets_of(case.decide().learned)
    assert made is not None
    end = made.unrecognized_fields["x-sealift-issued"] + 10 * DAY
    assert case.decide(policy=policy).approved().valid_until == end
    root = next_root(case)
    root.unrecognized_fields["x-sealift-issued"] = T0 + 9 * DAY
    refused(case.root_file(root, "alice", "bob").decide(end, policy), "trust.expired")


@pytest.mark.parametrize("value", [None, -1, "1790000000", True, 2**53, [1], 253_402_300_800])
@pytest.mark.parametrize("role", ["root", "targets"])
def test_time_of_issue_that_is_no_time_is_refused(case: Case, role: str, value: Any) -> None:
    signed: Any = next_root(case) if role == "root" else next_targets(case)
    signed.unrecognized_fields["x-sealift-issued"] = value
    if value is None:
        del signed.unrecognized_fields["x-sealift-issued"]
    forged = (
        case.root_file(signed, "alice", "bob")
        if role == "root"
        else case.with_targets(signed, "alice", "bob")
    )
    decision = forged.decide()
    refused(decision, "trust.metadata")
    assert decision.learned.clock_floor <= case.decide().learned.clock_floor


def test_strict_policy_has_no_grace() -> None:
    assert (STRICT.grace_days, STRICT.max_trust_age_days, STRICT.min_approvals) == (0, 180, 2)
