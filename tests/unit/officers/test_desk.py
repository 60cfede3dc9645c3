"""A compromised builder against an officer's desk: whatever the packet stages beside what it says
is refused, and no signature leaves (docs/threat-model.md, the builder's machine)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tuf.api.metadata import Metadata, Root, TargetFile, Targets

from airgap import fsio
from airgap.errors import SealiftError
from airgap.trust.decide import DAY
from bundler.officers import packet as packets
from bundler.officers.packet import PacketFile, Staged
from bundler.officers.staging import to_bytes, when
from tests.lab import T0, Lab


def stage(lab: Lab, signed: Root | Targets, **changes: Any) -> None:
    """Replace what the open packet stages, as a builder can: packet.json fits."""
    packet = packets.read(lab.packet_folder)
    data = to_bytes(Metadata(signed))
    role = signed.type
    fsio.write(lab.packet_folder / "staged" / f"{role}.json", data)
    one = Staged(role=role, version=signed.version, sha256=hashlib.sha256(data).hexdigest())
    others = tuple(s for s in packet.file.staged if s.role != role)
    staged = tuple(sorted((*others, one), key=lambda s: s.role))
    write(lab, replace(packet.file, staged=staged, **changes))


def write(lab: Lab, file: PacketFile) -> None:
    fsio.write(lab.packet_folder / "packet.json", file.to_bytes())


def staged(lab: Lab) -> Targets:
    signed = Metadata.from_bytes(packets.read(lab.packet_folder).staged["targets"]).signed
    assert isinstance(signed, Targets)
    return signed


def refuses(lab: Lab, name: str, error_id: str, exit_code: int = 4) -> SealiftError:
    """The desk refuses, keeps its memory, and no signature lies in the packet."""
    desk = lab.home / "officers" / name
    before = {p: p.read_bytes() for p in desk.rglob("*") if p.is_file()}
    with pytest.raises(SealiftError) as e:
        lab.sign(name)
    assert (e.value.id, e.value.exit_code) == (error_id, exit_code), e.value.why
    assert {p: p.read_bytes() for p in desk.rglob("*") if p.is_file()} == before
    assert not (lab.packet_folder / "signatures" / f"{name}.json").exists()
    return e.value


def second_manifest(targets: Targets) -> None:
    targets.targets["evil/1.manifest.json"] = TargetFile.from_data(
        "evil/1.manifest.json", b"evil", ["sha256"]
    )


def other_digest(targets: Targets) -> None:
    targets.targets["tiny/1.0.manifest.json"].hashes["sha256"] = "0" * 64


def two_digests(targets: Targets) -> None:
    targets.targets["tiny/1.0.manifest.json"].hashes["sha512"] = "0" * 128


def revocation_beside_it(targets: Targets) -> None:
    targets.unrecognized_fields["x-sealift-revoked"] = ["a" * 64]


def foreign_field(targets: Targets) -> None:
    targets.unrecognized_fields["comment"] = "x"


def version_skipped(targets: Targets) -> None:
    targets.version += 1


def version_repeated(targets: Targets) -> None:
    targets.version -= 1


def valid_for_ever(targets: Targets) -> None:
    targets.expires = when(T0 + 4 * 366 * DAY)


def made_tomorrow(targets: Targets) -> None:
    targets.unrecognized_fields["x-sealift-issued"] = T0 + 3 * DAY


def made_last_year(targets: Targets) -> None:
    targets.unrecognized_fields["x-sealift-issued"] = T0 - 300 * DAY


@pytest.mark.parametrize(
    "change",
    [
        second_manifest,
        other_digest,
        two_digests,
        revocation_beside_it,
        foreign_field,
        version_skipped,
        version_repeated,
        valid_for_ever,
        made_tomorrow,
        made_last_year,
    ],
)
def test_list_that_does_more_than_the_packet_says_is_not_signed(
    lab: Lab, change: Callable[[Targets], None]
) -> None:
    lab.review()
    targets = staged(lab)
    change(targets)
    stage(lab, targets)
    refuses(lab, "alice", "trust.packet")


def test_manifest_taken_off_the_list_unseen_is_not_signed(lab: Lab) -> None:
    lab.approve("1.0")
    lab.review("2.0")
    targets = staged(lab)
    del targets.targets["tiny/1.0.manifest.json"]
    stage(lab, targets)
    refuses(lab, "alice", "trust.packet")


def test_other_content_for_an_approved_version_is_not_signed(lab: Lab) -> None:
    lab.approve("1.0")
    lab.review("2.0")
    targets = staged(lab)
    other_digest(targets)
    stage(lab, targets)
    refuses(lab, "alice", "trust.packet")


def test_revoked_manifest_brought_back_is_not_signed(lab: Lab) -> None:
    digest = lab.approve("1.0")
    lab.revoke(digest)
    lab.review("2.0")
    targets = staged(lab)
    targets.unrecognized_fields["x-sealift-revoked"] = []
    stage(lab, targets)
    error = refuses(lab, "alice", "trust.packet")
    assert "RESTORE" in error.why and digest in error.why


def test_revoked_manifest_listed_again_is_not_signed(lab: Lab) -> None:
    """Its digest stays revoked, but the list would show it as approved."""
    digest = lab.approve("1.0")
    lab.revoke(digest)
    lab.review("2.0")
    targets = staged(lab)
    targets.targets["tiny/1.0.manifest.json"] = TargetFile(
        1, {"sha256": digest}, "tiny/1.0.manifest.json"
    )
    stage(lab, targets)
    refuses(lab, "alice", "trust.packet")


def test_root_beside_a_manifest_is_not_signed(lab: Lab) -> None:
    lab.review()
    root = lab.repository.published().root
    root.version += 1
    stage(lab, root)
    refuses(lab, "alice", "trust.packet")


def test_packet_that_says_renew_and_adds_is_not_signed(lab: Lab) -> None:
    lab.review()
    file = packets.read(lab.packet_folder).file
    write(lab, replace(file, kind="renew", manifest=None, report=None))
    refuses(lab, "alice", "trust.packet")


def test_report_that_is_not_what_manifest_and_evidence_make_is_not_signed(lab: Lab) -> None:
    lab.review()
    nice = b"<!doctype html><p>all is well"
    fsio.write(lab.packet_folder / "REVIEW.html", nice)
    plain = json.loads((lab.packet_folder / "packet.json").read_bytes())
    plain["report"] = hashlib.sha256(nice).hexdigest()
    write(lab, PacketFile.from_json(plain))
    refuses(lab, "alice", "packet.report", 3)


def test_manifest_exchanged_under_the_list_is_not_signed(lab: Lab) -> None:
    lab.review("1.0")
    data = (lab.packet_folder / "manifest.json").read_bytes()
    other = data.replace(b'"release":1', b'"release":9')
    fsio.write(lab.packet_folder / "manifest.json", other)
    refuses(lab, "alice", "packet.changed", 3)
    plain = json.loads((lab.packet_folder / "packet.json").read_bytes())
    plain["manifest"] = hashlib.sha256(other).hexdigest()
    write(lab, PacketFile.from_json(plain))
    refuses(lab, "alice", "trust.packet")


@pytest.mark.parametrize("kind", ["findings", "coverage", "policy"])
def test_manifest_without_the_evidence_that_is_judged_is_refused_and_no_crash(
    lab: Lab, kind: str
) -> None:
    lab.review()
    plain = json.loads((lab.packet_folder / "manifest.json").read_bytes())
    plain["evidence"] = [e for e in plain["evidence"] if e["kind"] != kind]
    data = (json.dumps(plain, sort_keys=True, separators=(",", ":")) + "\n").encode()
    targets = staged(lab)
    fsio.write(lab.packet_folder / "manifest.json", data)
    path = "tiny/1.0.manifest.json"
    targets.targets[path] = TargetFile.from_data(path, data, ["sha256"])
    stage_bytes(lab, targets, data)
    refuses(lab, "alice", "format.value", 3)


def stage_bytes(lab: Lab, targets: Targets, manifest: bytes) -> None:
    file = PacketFile.from_bytes((lab.packet_folder / "packet.json").read_bytes())
    data = to_bytes(Metadata(targets))
    fsio.write(lab.packet_folder / "staged/targets.json", data)
    one = Staged(role="targets", version=targets.version, sha256=hashlib.sha256(data).hexdigest())
    write(lab, replace(file, staged=(one,), manifest=hashlib.sha256(manifest).hexdigest()))


# --- two contents for one version


def test_second_packet_for_a_version_that_this_officer_signed_is_not_signed(lab: Lab) -> None:
    """A builder that opens a second packet and hides that the first was given up."""
    lab.review("1.0")
    lab.sign("alice")
    lab.review("1.1", replace=True)
    targets = staged(lab)
    targets.version -= 1
    stage(lab, targets, abandoned=())
    refuses(lab, "alice", "trust.equivocation")


def test_given_up_version_is_passed_over_by_everybody(lab: Lab) -> None:
    lab.review("1.0")
    lab.sign("alice")
    lab.review("1.1", replace=True)
    assert staged(lab).version == 3
    lab.sign("alice")
    lab.sign("bob")
    lab.collect()
    assert lab.repository.published().targets_signed.version == 3


def test_signing_the_same_again_gives_the_same(lab: Lab) -> None:
    lab.review()
    lab.sign("alice")
    path = lab.packet_folder / "signatures/alice.json"
    first = path.read_bytes()
    lab.sign("alice")
    assert path.read_bytes() == first


def test_crash_after_the_memory_and_before_the_signature_signs_the_same_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.review()
    monkeypatch.setattr(packets, "write_signature", _crash)
    monkeypatch.setattr("bundler.officers.approve.write_signature", _crash)
    with pytest.raises(KeyboardInterrupt):
        lab.sign("alice")
    monkeypatch.undo()
    lab.sign("alice")
    lab.review("1.1", replace=True)
    targets = staged(lab)
    targets.version -= 1
    stage(lab, targets, abandoned=())
    refuses(lab, "alice", "trust.equivocation")


def _crash(*_args: object) -> Path:
    raise KeyboardInterrupt


# --- what the desk remembers


def test_packet_on_an_older_list_than_this_desk_knows_is_not_signed(lab: Lab) -> None:
    """A builder that replays the list from before a revocation."""
    digest = lab.approve("1.0")
    old = lab.repository.published().files()
    lab.revoke(digest)
    lab.review("2.0")
    base = lab.packet_folder / "base"
    for path in base.iterdir():
        path.unlink()
    for name, data in old.items():
        fsio.write(base / name, data)
    file = packets.read(lab.packet_folder).file
    newest = max((n for n in old if n.endswith("targets.json")), key=lambda n: int(n.split(".")[0]))
    write(lab, replace(file, base_targets=hashlib.sha256(old[newest]).hexdigest()))
    with pytest.raises(SealiftError) as e:
        lab.sign("alice")
    assert e.value.exit_code == 4
    assert not (lab.packet_folder / "signatures/alice.json").exists()


def test_desk_that_never_saw_this_repository_wants_the_roots_fingerprint(lab: Lab) -> None:
    lab.review()
    desk, packet = lab.desk("carol"), packets.read(lab.packet_folder)
    for told in (None, "0" * 64):
        with pytest.raises(SealiftError) as e:
            desk.review(packet, lab.now, told)
        assert e.value.id == "trust.unknown-root"
    lab.sign("carol")


def test_packet_of_other_officers_is_not_signed(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", names=("alice", "dave", "erin"))
    other.init(by=("alice", "dave"))
    other.review()
    lab.approve("1.0")
    desk = lab.desk("alice")
    with pytest.raises(SealiftError) as e:
        desk.review(packets.read(other.packet_folder), lab.now, None)
    assert e.value.exit_code == 4


def test_new_trust_is_not_begun_where_one_is_known(lab: Lab, tmp_path: Path) -> None:
    lab.approve("1.0")
    other = Lab(tmp_path / "other")
    from bundler.officers import open_packet

    open_packet.open_init(other.repository, other.packet_folder, other.roles(), other.now)
    with pytest.raises(SealiftError) as e:
        lab.desk("alice").review(packets.read(other.packet_folder), lab.now, None)
    assert e.value.id == "trust.packet"


def test_lost_memory_of_a_desk_that_signed_lists_refuses(lab: Lab) -> None:
    """An empty memory could sign a second content for an old version."""
    lab.approve("1.0")
    (lab.home / "officers/alice/trust.json").unlink()
    lab.review("2.0")
    refuses(lab, "alice", "trust.none")


def test_key_outside_the_root_signs_nothing(lab: Lab) -> None:
    lab.review()
    refuses(lab, "mallory", "trust.not-an-officer", 5)


def test_hostile_names_and_counts_in_a_packet_are_refused_and_no_crash(lab: Lab) -> None:
    lab.review()
    for name in ("\u00b23.root.json", "x.root.json", "99999999999999999999.root.json"):
        path = lab.packet_folder / "base" / name
        fsio.write(path, b"{}")
        with pytest.raises(SealiftError):
            lab.sign("carol")
        path.unlink()
    for number in range(1600):
        (lab.packet_folder / "base" / f"a{number}.json").write_bytes(b"{}")
    with pytest.raises(SealiftError):
        lab.sign("alice")
    assert not list((lab.packet_folder / "signatures").iterdir())
