"""A small organisation for tests: officers with real keys, a trust repository made by the real
desk, and bundles with small payloads made by the real packer. Times are fixed: T0 is the present of
every test that does not say otherwise."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from airgap.format.artifacts import Model
from airgap.format.evidence import Coverage, Covered, Findings
from airgap.format.manifest import Evidence, Manifest
from airgap.format.policy import STRICT, Policy
from airgap.format.types import FileEntry, Target
from airgap.store import Store
from airgap.trust.decide import DAY
from airgap.trust.learn import root_of
from airgap.trust.metadata import is_solo, issued
from airgap.trust.state import Remembered
from bundler.evidence.report import render
from bundler.officers import approve, open_packet
from bundler.officers import packet as packets
from bundler.officers.collect import collect
from bundler.officers.desk import Desk
from bundler.officers.keys import BUILDER, PublicKey
from bundler.officers.repository import Published, TrustRepository
from bundler.officers.staging import Roles
from bundler.pack.directory import pack, prepare

T0 = 1_790_000_000  # 2026-09-21T15:33:20Z
NAMES = ("alice", "bob", "carol")


def fixed_key(owner: str) -> CryptoSigner:
    """A key pair that is the same in every run: the seed is the owner's name."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(owner.encode()).digest())
    public = PublicKey(
        owner=owner.split(".")[0], public=private.public_key().public_bytes_raw().hex()
    )
    return CryptoSigner(private, public.tuf_key(officer=owner != BUILDER))


def entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(
        path=PurePosixPath(path),
        sha256=hashlib.sha256(data).hexdigest(),
        blake3=blake3(data).hexdigest(),
        size=len(data),
    )


@dataclass
class Lab:
    """One connected side under `home`; `now` is its clock."""

    home: Path
    threshold: int = 2
    names: tuple[str, ...] = NAMES
    now: int = T0
    signers: dict[str, CryptoSigner] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.home / "store")
        self.store.prepare()
        self.repository = TrustRepository(self.home / "trust")
        self.builder = fixed_key(BUILDER)
        self.signers = {n: fixed_key(n) for n in self.names}

    # --- trust

    def roles(self, names: tuple[str, ...] | None = None, threshold: int | None = None) -> Roles:
        keys = [self.signer(n).public_key for n in names or self.names]
        return Roles(keys, self.builder.public_key, threshold or self.threshold)

    def signer(self, name: str) -> CryptoSigner:
        return self.signers.setdefault(name, fixed_key(name))

    def desk(self, name: str) -> Desk:
        return Desk(self.home / "officers" / name)

    @property
    def packet_folder(self) -> Path:
        return self.home / "packet"

    def init(self, by: tuple[str, ...] | None = None) -> Published:
        open_packet.open_init(self.repository, self.packet_folder, self.roles(), self.now)
        return self.sign_and_collect(by or self.names[: self.threshold])

    def sign(self, name: str, *, passed: bool = True, comment: str = "") -> None:
        packet = packets.read(self.packet_folder)
        fingerprint = None
        if self.repository.exists():
            roots = self.repository.published().roots
            fingerprint = hashlib.sha256(roots[max(roots)]).hexdigest()
        desk = self.desk(name)
        review = desk.review(packet, self.now, fingerprint)
        approve.sign(
            desk, review, name, self.signer(name), self.now, passed=passed, comment=comment
        )

    def collect(self) -> Published:
        return collect(packets.read(self.packet_folder), self.repository, self.builder, self.now)

    def sign_and_collect(self, by: tuple[str, ...]) -> Published:
        for name in by:
            self.sign(name)
        return self.collect()

    # --- manifests and bundles

    def manifest(
        self, version: str = "1.0", files: dict[str, bytes] | None = None, **changes: Any
    ) -> tuple[bytes, dict[str, bytes]]:
        """A manifest over small files in the store; its bytes and the packet's documents."""
        files = {"config.json": b"{}\n", "model.gguf": b"GGUF" * 5000} if files is None else files
        entries = tuple(entry(p, d) for p, d in sorted(files.items()))
        for data in files.values():
            self.store.add_bytes(data)
        artifacts = changes.pop(
            "artifacts",
            (
                Model(
                    name="model",
                    source="tests",
                    revision="1",
                    format="gguf",
                    publisher="",
                    licence="apache-2.0",
                    files=entries,
                ),
            ),
        )
        documents = self.evidence(artifacts, changes.pop("findings", None))
        manifest = Manifest(
            **{
                "name": "tiny",
                "version": version,
                "summary": "a test",
                "release": 1,
                "created": T0,
                "not_after": T0 + 300 * DAY,
                "audience": (),
                "handling": "",
                "target": Target(
                    python="3.11", platform="x86_64-manylinux_2_35", accelerator="cpu"
                ),
                "artifacts": artifacts,
                "evidence": tuple(self._evidence_entry(k, d) for k, d in sorted(documents.items())),
                **changes,
            }
        )
        data = manifest.to_bytes()
        report = render(
            manifest,
            hashlib.sha256(data).hexdigest(),
            Findings.from_bytes(documents["findings"]),
            Coverage.from_bytes(documents["coverage"]),
            Policy.from_bytes(documents["policy"]),
        )
        out = {f"evidence/{k}.json": d for k, d in documents.items()}
        return data, {**out, "REVIEW.html": report}

    def evidence(
        self, artifacts: tuple[Model, ...], findings: Findings | None = None
    ) -> dict[str, bytes]:
        lines = tuple(
            Covered(
                artifact=a.name,
                path=f.path,
                sha256=f.sha256,
                verdict="covered",
                kind="unknown",
                scanners=("sniff",),
            )
            for a in artifacts
            for f in a.files
        )
        return {
            "findings": (findings or Findings(tools=("lab 1",), findings=())).to_bytes(),
            "coverage": Coverage(files=lines).to_bytes(),
            "policy": STRICT.to_bytes(),
            "bom": b"{}\n",
            "provenance": b"{}\n",
            "lock": b"{}\n",
        }

    def _evidence_entry(self, kind: str, data: bytes) -> Evidence:
        self.store.add_bytes(data)
        e = entry("x", data)
        return Evidence(kind=kind, sha256=e.sha256, blake3=e.blake3, size=e.size)

    def review(self, version: str = "1.0", *, replace: bool = False, **changes: Any) -> str:
        """Open a packet for a manifest; returns the manifest's SHA-256."""
        data, documents = self.manifest(version, **changes)
        open_packet.open_manifest(
            self.repository, self.packet_folder, data, documents, self.now, replace=replace
        )
        return hashlib.sha256(data).hexdigest()

    def approve(self, version: str = "1.0", by: tuple[str, ...] | None = None, **kw: Any) -> str:
        digest = self.review(version, **kw)
        self.sign_and_collect(by or self.names[: self.threshold])
        return digest

    def revoke(self, sha256: str, by: tuple[str, ...] | None = None) -> None:
        open_packet.open_revoke(
            self.repository, self.packet_folder, sha256, self.now, replace=False
        )
        self.sign_and_collect(by or self.names[: self.threshold])

    def pack(self, digest: str, out: Path | None = None) -> Path:
        ready = prepare(self.repository, digest, self.now)
        return pack(ready, self.store, out or self.home / "out")

    # --- the other side

    def host_state(self, version: int = 1) -> Remembered:
        """What a host remembers right after `trust add` of root `version`."""
        data = self.repository.published().roots[version]
        solo = Remembered("host-lab", data, None, 0)
        root = root_of(solo)
        return Remembered("host-lab", data, None, issued(root), is_solo(root))
