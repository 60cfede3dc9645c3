"""Attacker's tools: metadata signed by whoever is named, put together in any way."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Signed, Targets
from tuf.api.serialization.json import JSONSerializer

from airgap.errors import SealiftError
from airgap.format.manifest import Manifest
from airgap.format.policy import STRICT, Policy
from airgap.trust.decide import DAY, Decision, TrustFiles, decide
from airgap.trust.state import Remembered
from bundler.officers import packet as packets
from bundler.officers.packet import read_signatures
from bundler.officers.staging import make_snapshot, make_timestamp
from tests.lab import T0, Lab

PATH = "tiny/1.0.manifest.json"


def sign(signed: Signed, *signers: CryptoSigner) -> bytes:
    """A metadata file with exactly these signatures."""
    metadata: Metadata[Any] = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def parsed(data: bytes) -> Any:
    """The signed part of a metadata file, unchecked, to be changed and signed again."""
    return copy.deepcopy(Metadata.from_bytes(data).signed)


@dataclass(frozen=True)
class Case:
    """An approved bundle's trust in memory, and what a freshly set up host remembers."""

    lab: Lab
    state: Remembered
    files: TrustFiles

    def decide(
        self, clock: int = T0, policy: Policy = STRICT, state: Remembered | None = None
    ) -> Decision:
        return decide(state or self.state, self.files, clock, policy)

    def signers(self, *names: str) -> list[CryptoSigner]:
        return [self.lab.signer(n) for n in names]

    @property
    def targets(self) -> Targets:
        """The bundle's targets, to be changed."""
        name = next(n for n in self.files.metadata if n.endswith(".targets.json"))
        found = parsed(self.files.metadata[name])
        assert isinstance(found, Targets)
        return found

    @property
    def root(self) -> Root:
        """The newest root, to be changed."""
        found = parsed(self.files.metadata[f"{len(self.roots)}.root.json"])
        assert isinstance(found, Root)
        return found

    @property
    def roots(self) -> dict[str, bytes]:
        return {n: d for n, d in self.files.metadata.items() if n.endswith(".root.json")}

    def file(self, name: str, data: bytes | None) -> Case:
        """The same with one metadata file replaced, added or (None) removed."""
        metadata = {**self.files.metadata}
        metadata.pop(name, None)
        if data is not None:
            metadata[name] = data
        return replace(self, files=replace(self.files, metadata=metadata))

    def root_file(self, root: Root, *names: str) -> Case:
        """The same with a root signed by these."""
        return self.file(f"{root.version}.root.json", sign(root, *self.signers(*names)))

    def with_targets(self, targets: Targets, *names: str, **builder: Any) -> Case:
        """The same over other targets, signed by these officers, and the builder's files anew."""
        return self.over(targets.version, sign(targets, *self.signers(*names)), **builder)

    def over(
        self,
        version: int,
        targets: bytes,
        *,
        expires: int = T0 + 60 * DAY,
        snapshot_version: int = 9,
        timestamp_version: int = 9,
        builder: CryptoSigner | None = None,
    ) -> Case:
        """The builder's snapshot and timestamp over exactly these bytes, and no older ones."""
        key = builder or self.lab.builder
        snapshot = sign(make_snapshot(targets, version, snapshot_version, expires), key)
        timestamp = sign(
            make_timestamp(snapshot, snapshot_version, timestamp_version, expires), key
        )
        metadata = {
            **self.roots,
            f"{version}.targets.json": targets,
            f"{snapshot_version}.snapshot.json": snapshot,
            "timestamp.json": timestamp,
        }
        return replace(self, files=replace(self.files, metadata=metadata))

    def with_statements(self, *statements: bytes) -> Case:
        return replace(self, files=replace(self.files, statements=statements))


def case_of(lab: Lab, digest: str, state: Remembered | None = None) -> Case:
    """What a bundle of that manifest carries now, whether or not `pack` would pack it."""
    folder = lab.repository.approved(digest)
    manifest = (folder / "manifest.json").read_bytes()
    files = TrustFiles(
        lab.repository.published().files(),
        tuple(p.read_bytes() for p in sorted((folder / "statements").glob("*.json"))),
        Manifest.from_bytes(manifest).target_path,
        manifest,
    )
    return Case(lab, state or lab.host_state(), files)


def statements_in(lab: Lab) -> dict[str, bytes]:
    """Officer -> statement of the packet that is open."""
    files = read_signatures(packets.read(lab.packet_folder))
    return {n: f.statement.encode() for n, f in files.items() if f.statement is not None}


def refused(decision: Decision, error_id: str) -> SealiftError:
    """Assert that the outcome is this refusal; every one of trust exits with 4."""
    assert isinstance(decision.outcome, SealiftError), "the bundle was accepted"
    assert decision.outcome.id == error_id, decision.outcome.why
    assert decision.outcome.exit_code == 4
    return decision.outcome


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
