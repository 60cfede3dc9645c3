"""The packet: one folder that goes from the builder to every officer and comes back signed.

packet.json     what this packet does, and the SHA-256 of every file that decides
base/           the published metadata, whole root chain (none before the first publication)
staged/         root.json and targets.json as they would be published, unsigned
manifest.json REVIEW.html evidence/KIND.json     for a packet that approves a manifest
signatures/OFFICER.json     what an officer made of it; added by `sealift approve`
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from airgap import bounded, fsio, limits
from airgap.errors import FormatError, IntegrityError, UsageError
from airgap.format.codec import Document
from airgap.format.evidence import Coverage, Findings
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.rules import Choice, Range, Text
from airgap.format.statement import KeyId
from airgap.format.types import Line, Officer, Sha256

_METADATA = re.compile(r"(?:[1-9][0-9]{0,9}\.(?:root|targets|snapshot)|timestamp)\.json")
_MAX_FILES = limits.MAX_TRUST_FILES
KINDS = ("init", "manifest", "revoke", "renew", "rotate")


@dataclass(frozen=True, kw_only=True)
class Staged(Document):
    """One role's next version: SHA-256 of the unsigned file in staged/."""

    role: Annotated[str, Choice(("root", "targets"))]
    version: Annotated[int, Range(1)]
    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class PacketFile(Document):
    """packet.json. `abandoned`: versions of targets that were staged before and given up."""

    schema: Annotated[str, Choice(("sealift.packet/1",))] = "sealift.packet/1"
    kind: Annotated[str, Choice(KINDS)]
    summary: Line
    staged: tuple[Staged, ...]
    abandoned: tuple[int, ...] = ()
    base_targets: Sha256 | None = None
    manifest: Sha256 | None = None
    report: Sha256 | None = None
    revokes: Sha256 | None = None

    def validate(self) -> None:
        roles = [s.role for s in self.staged]
        if roles not in (["targets"], ["root", "targets"]):
            raise FormatError("format.value", "staged", "it stages targets, or root and targets")


@dataclass(frozen=True, kw_only=True)
class RoleSignature(Document):
    """One TUF signature over a staged role's signed bytes."""

    role: Annotated[str, Choice(("root", "targets"))]
    keyid: KeyId
    sig: Annotated[str, Text(r"[0-9a-f]+", 20_000, "a signature in hex")]


@dataclass(frozen=True, kw_only=True)
class SignatureFile(Document):
    """What one officer made of a packet. A FAILED verdict carries a statement and no signature."""

    schema: Annotated[str, Choice(("sealift.signature/1",))] = "sealift.signature/1"
    officer: Officer
    packet: Sha256
    signatures: tuple[RoleSignature, ...]
    statement: Annotated[str, Text(None, limits.MAX_STATEMENT_BYTES)] | None = None


@dataclass(frozen=True)
class Packet:
    """A packet read and checked against its own packet.json; nothing in it is trusted yet."""

    folder: Path
    file: PacketFile
    digest: str
    base: Mapping[str, bytes]
    staged: Mapping[str, bytes]
    manifest: bytes | None = None
    report: bytes | None = None
    evidence: Mapping[str, bytes] = field(default_factory=dict)

    def parsed_manifest(self) -> Manifest:
        """The manifest; only for packets of kind `manifest`."""
        if self.manifest is None:
            raise _bad(f"a packet of kind {self.file.kind} carries no manifest")
        return Manifest.from_bytes(self.manifest)

    def findings(self) -> Findings:
        """The findings that the manifest names."""
        return Findings.from_bytes(self._evidence("findings"))

    def coverage(self) -> Coverage:
        """The ledger that the manifest names."""
        return Coverage.from_bytes(self._evidence("coverage"))

    def policy(self) -> Policy:
        """The policy that the gate judged by."""
        return Policy.from_bytes(self._evidence("policy"))

    def _evidence(self, kind: str) -> bytes:
        """Its bytes; FormatError when the manifest names none of that kind."""
        self.parsed_manifest().evidence_of(kind)
        return self.evidence[kind]


def write(
    folder: Path,
    file: PacketFile,
    base: Mapping[str, bytes],
    staged: Mapping[str, bytes],
    documents: Mapping[str, bytes],
) -> str:
    """Write a packet; packet.json last. Returns its SHA-256. `documents`: path -> bytes."""
    fsio.remove_tree(folder)
    for name, data in base.items():
        fsio.write(folder / "base" / name, data)
    for role, data in staged.items():
        fsio.write(folder / "staged" / f"{role}.json", data)
    for name, data in documents.items():
        fsio.write(folder / name, data)
    fsio.make_dirs(folder / "signatures")
    fsio.write(folder / "packet.json", file.to_bytes())
    return hashlib.sha256(file.to_bytes()).hexdigest()


def read(folder: Path) -> Packet:
    """Read a packet, bounded, and compare every file with packet.json and the manifest.

    Raises IntegrityError `packet.changed` or UsageError `packet.missing`.
    """
    if not (folder / "packet.json").is_file():
        raise UsageError(
            "packet.missing",
            f"{folder} is not a packet",
            why="it has no packet.json",
            do="name the folder that `sealift review` wrote",
        )
    data = bounded.read(folder / "packet.json", limits.MAX_STATEMENT_BYTES)
    file = PacketFile.from_bytes(data)
    base = _read_base(folder / "base")
    staged = {s.role: _same(folder / "staged" / f"{s.role}.json", s.sha256) for s in file.staged}
    packet = Packet(folder, file, hashlib.sha256(data).hexdigest(), base, staged)
    if file.kind != "manifest":
        return packet
    if file.manifest is None or file.report is None:
        raise _bad("it approves a manifest and names none")
    manifest = _same(folder / "manifest.json", file.manifest)
    report = _same(folder / "REVIEW.html", file.report)
    evidence = {
        e.kind: _same(folder / "evidence" / f"{e.kind}.json", e.sha256)
        for e in Manifest.from_bytes(manifest).evidence
    }
    return Packet(folder, file, packet.digest, base, staged, manifest, report, evidence)


def _read_base(folder: Path) -> dict[str, bytes]:
    """The published metadata: known names, bounded in number and in bytes."""
    if not folder.is_dir():
        return {}
    with fsio.disk_errors(f"reading {folder}"):
        names = sorted(e.name for e in itertools.islice(os.scandir(folder), _MAX_FILES + 1))
    if len(names) > _MAX_FILES:
        raise _bad(f"base holds more than {_MAX_FILES} files")
    out: dict[str, bytes] = {}
    for name in names:
        if _METADATA.fullmatch(name) is None:
            raise _bad(f"base holds {name[:80]!r}, which is no metadata")
        out[name] = _read(folder / name)
        if sum(map(len, out.values())) > limits.MAX_TRUST_TOTAL_BYTES:
            raise _bad(f"base holds more than {limits.MAX_TRUST_TOTAL_BYTES} bytes")
    return out


def read_signatures(packet: Packet) -> dict[str, SignatureFile]:
    """Officer -> what they made of this very packet. Another packet's signature is refused."""
    out = {}
    for path in sorted((packet.folder / "signatures").glob("*.json")):
        found = SignatureFile.from_bytes(_read(path))
        if found.packet != packet.digest or path.stem != found.officer:
            raise _bad(f"{path.name} belongs to another packet or officer")
        out[found.officer] = found
    return out


def write_signature(packet: Packet, signature: SignatureFile) -> Path:
    """Add an officer's file."""
    path = packet.folder / "signatures" / f"{signature.officer}.json"
    fsio.write(path, signature.to_bytes())
    return path


def _read(path: Path) -> bytes:
    return bounded.read(path, limits.MAX_DOCUMENT_BYTES)


def _same(path: Path, sha256: str) -> bytes:
    data = _read(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise _bad(f"{path.name} is not the one that was sealed into it")
    return data


def _bad(why: str) -> IntegrityError:
    return IntegrityError(
        "packet.changed",
        "the packet is damaged or was changed",
        why=why,
        do="ask the builder for the packet again (`sealift review` writes it)",
    )
