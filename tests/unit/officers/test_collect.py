"""Collecting: what counts, what does not, and that nothing half is published."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from airgap import fsio
from airgap.errors import SealiftError, UsageError
from airgap.trust.metadata import revoked
from bundler.officers import open_packet
from bundler.officers import packet as packets
from bundler.officers.packet import SignatureFile
from tests.lab import Lab, fixed_key
from tests.unit.trust.forge import case_of


def refuses(lab: Lab, error_id: str, exit_code: int = 4) -> SealiftError:
    """Nothing is published, and what was published stays as it was."""
    before = published(lab)
    with pytest.raises(SealiftError) as e:
        lab.collect()
    assert (e.value.id, e.value.exit_code) == (error_id, exit_code), e.value.why
    assert published(lab) == before
    return e.value


def published(lab: Lab) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in lab.repository.metadata.iterdir()}


def signature(lab: Lab, name: str) -> Path:
    return lab.packet_folder / "signatures" / f"{name}.json"


def change(path: Path, **fields: object) -> None:
    plain = json.loads(path.read_bytes()) | fields
    fsio.write(path, SignatureFile.from_json(plain).to_bytes())


def test_one_approval_of_two_publishes_nothing(lab: Lab) -> None:
    lab.review()
    lab.sign("alice")
    assert "alice only" in refuses(lab, "trust.approvals").why


def test_approval_and_refusal_are_not_two(lab: Lab) -> None:
    lab.review()
    lab.sign("alice")
    lab.sign("bob", passed=False, comment="licence unclear")
    assert "bob refused" in refuses(lab, "trust.approvals").why


def test_refusal_beside_two_approvals_travels_along(lab: Lab) -> None:
    digest = lab.review()
    for name in ("alice", "bob"):
        lab.sign(name)
    lab.sign("carol", passed=False)
    lab.collect()
    assert sorted(case_of(lab, digest).decide().approved().verdicts.failed) == ["carol"]


def test_statement_without_a_signature_on_the_list_is_too_few(lab: Lab) -> None:
    lab.review()
    lab.sign("alice")
    lab.sign("bob")
    change(signature(lab, "bob"), signatures=[])
    refuses(lab, "trust.threshold")


def test_signature_of_one_officer_under_anothers_name_does_not_count(lab: Lab) -> None:
    lab.review()
    lab.sign("alice")
    plain = json.loads(signature(lab, "alice").read_bytes()) | {"officer": "bob"}
    fsio.write(signature(lab, "bob"), SignatureFile.from_json(plain).to_bytes())
    refuses(lab, "trust.statement")


def test_file_of_another_packet_is_refused(lab: Lab) -> None:
    lab.review("1.0")
    lab.sign("alice")
    old = signature(lab, "alice").read_bytes()
    lab.review("1.1", replace=True)
    fsio.write(signature(lab, "alice"), old)
    lab.sign("bob")
    refuses(lab, "packet.changed", 3)


def test_signature_that_does_not_fit_is_left_out(lab: Lab) -> None:
    """Whoever writes into the packet cannot have junk published beside real signatures."""
    lab.review()
    for name in ("alice", "bob", "carol"):
        lab.sign(name)
    one = json.loads(signature(lab, "carol").read_bytes())
    change(signature(lab, "carol"), signatures=[one["signatures"][0] | {"sig": "00" * 64}])
    lab.collect()
    data = json.loads(lab.repository.published().targets)
    assert len(data["signatures"]) == 2


def test_wrong_builders_key_publishes_nothing(lab: Lab) -> None:
    lab.review()
    lab.sign("alice")
    lab.sign("bob")
    lab.builder = fixed_key("mallory")
    refuses(lab, "trust.threshold")


def test_packet_that_was_overtaken_is_refused(lab: Lab) -> None:
    lab.review("1.0")
    lab.sign("alice")
    lab.sign("bob")
    kept = {p: p.read_bytes() for p in lab.packet_folder.rglob("*") if p.is_file()}
    lab.review("1.1", replace=True)
    lab.sign_and_collect(("alice", "bob"))
    fsio.remove_tree(lab.packet_folder)
    for path, data in kept.items():
        fsio.write(path, data)
    refuses(lab, "trust.packet-stale")


def test_only_one_packet_is_open_at_a_time(lab: Lab) -> None:
    lab.review("1.0")
    with pytest.raises(UsageError) as e:
        lab.review("1.1")
    assert e.value.id == "trust.packet-open"


def test_collecting_twice_changes_nothing(lab: Lab) -> None:
    lab.approve()
    before = published(lab)
    lab.collect()
    assert published(lab) == before


@pytest.mark.parametrize("number", range(12))
def test_killed_at_any_rename_it_is_finished_by_the_same_command(lab: Lab, number: int) -> None:
    """And until then a reader sees the state before, or the state after."""
    digest = lab.review()
    lab.sign("alice")
    lab.sign("bob")
    child = os.fork()
    if child == 0:
        _die_at_rename(number)
        lab.collect()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 137)
    seen = lab.repository.published().targets_signed
    assert seen.version in (1, 2)
    lab.now += 60
    lab.sign("alice")  # a statement of another time, after the killed run kept the first one
    lab.collect()
    assert case_of(lab, digest).decide().approved().targets_version == 2
    assert lab.repository.pending().packet is None
    assert not list(lab.repository.path.rglob(f"{fsio.TEMP_PREFIX}*"))


def _die_at_rename(number: int) -> None:
    real, count = os.rename, iter(range(1000))

    def rename(a: object, b: object) -> None:
        if next(count) == number:
            os._exit(137)
        real(a, b)  # type: ignore[arg-type]

    os.rename = rename  # type: ignore[assignment]


def test_revoking_needs_two_and_keeps_every_other_manifest(lab: Lab) -> None:
    first = lab.approve("1.0")
    second = lab.approve("2.0")
    open_packet.open_revoke(lab.repository, lab.packet_folder, first, lab.now, replace=False)
    lab.sign("carol")
    refuses(lab, "trust.threshold")
    lab.sign("alice")
    targets = lab.collect().targets_signed
    assert revoked(targets) == {first}
    assert [t.hashes["sha256"] for t in targets.targets.values()] == [second]


def test_rotation_is_signed_by_old_and_new_officers(lab: Lab) -> None:
    lab.approve("1.0")
    roles = lab.roles(("bob", "carol", "dave"))
    open_packet.open_rotate(lab.repository, lab.packet_folder, roles, lab.now, replace=False)
    lab.sign("carol")
    lab.sign("dave")
    refuses(lab, "trust.threshold")  # one of the old officers is not enough
    lab.sign("bob")
    assert lab.collect().root.version == 2


def test_rotation_by_the_leaving_officers_alone_is_refused(lab: Lab) -> None:
    lab.approve("1.0")
    roles = lab.roles(("carol", "dave", "erin"))
    open_packet.open_rotate(lab.repository, lab.packet_folder, roles, lab.now, replace=False)
    lab.sign("alice")
    lab.sign("bob")
    refuses(lab, "trust.threshold")


def test_rotation_to_one_person_is_not_signed(lab: Lab) -> None:
    roles = lab.roles(("alice", "bob"), threshold=1)
    open_packet.open_rotate(lab.repository, lab.packet_folder, roles, lab.now, replace=False)
    with pytest.raises(SealiftError) as e:
        lab.sign("alice")
    assert e.value.id == "trust.min-approvals"
    assert packets.read_signatures(packets.read(lab.packet_folder)) == {}
