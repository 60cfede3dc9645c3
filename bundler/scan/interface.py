"""What a scanner is. The pipeline knows only this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from airgap.format.evidence import Finding


@dataclass(frozen=True)
class Subject:
    """One file under scan: where it stands in its artifact, and where its bytes lie (read only).

    `kind` is what `sniff` says the bytes are (never what the name says), e.g. `safetensors`.
    """

    artifact: str
    artifact_kind: str  # "model" or "wheels"
    path: PurePosixPath
    sha256: str
    size: int
    file: Path
    kind: str


@dataclass(frozen=True)
class Unscanned:
    """A file that a scanner meant to read and could not, with the reason."""

    path: PurePosixPath
    reason: str


@dataclass
class ScanResult:
    """What one scanner says of one artifact. `covered`: paths of which it read every byte that
    matters to it; a path it did not take up stands nowhere."""

    findings: list[Finding] = field(default_factory=list)
    covered: set[PurePosixPath] = field(default_factory=set)
    unscanned: list[Unscanned] = field(default_factory=list)


class Scanner(Protocol):
    """One way of looking at an artifact. Never executes or unpickles what it looks at."""

    name: str

    def version(self) -> str:
        """`name version` of what does the looking, for the evidence."""

    def scan(self, artifact: Sequence[Subject]) -> ScanResult:
        """Look at all files of one artifact together (an index needs its shards)."""
