"""What a scanner is. The pipeline knows only this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from airgap.format.evidence import ChatTemplate, Finding

# Told of bytes as they are read, from any thread.
OnBytes = Callable[[int], object]

# Kinds of artifacts whose files lie in a tree that an engine is pointed at.
TREES = frozenset(["model", "adapter", "files"])


@dataclass(frozen=True)
class Stated:
    """What the lock says of an artifact; empty where it says nothing. `base` is an adapter's."""

    source: str = ""
    publisher: str = ""
    licence: str = ""
    base: str = ""


UNSTATED = Stated()


@dataclass(frozen=True)
class Subject:
    """One file under scan: where it stands in its artifact, and where its bytes lie (read only).

    `kind` is what `sniff` says the bytes are (never what the name says), e.g. `safetensors`.
    """

    artifact: str
    artifact_kind: str  # "model", "adapter", "files", "wheels" or "image"
    path: PurePosixPath
    sha256: str
    size: int
    file: Path
    kind: str
    stated: Stated = UNSTATED

    @property
    def in_tree(self) -> bool:
        """Whether it belongs to a model, an adapter or plain files: what an engine opens by name.
        Wheels and images are looked at as what they are."""
        return self.artifact_kind in TREES


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
    templates: list[ChatTemplate] = field(default_factory=list)


def unheard(_count: int) -> None:
    """For those who want no progress."""


class Scanner(Protocol):
    """One way of looking at an artifact. Never executes or unpickles what it looks at."""

    name: str

    def version(self) -> str:
        """`name version` of what does the looking, for the evidence."""

    def scan(self, artifact: Sequence[Subject], on_bytes: OnBytes = unheard) -> ScanResult:
        """Look at all files of one artifact together (an index needs its shards). Who reads more
        than headers says so to `on_bytes`."""
