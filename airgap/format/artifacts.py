"""Artifacts of a lock and of a manifest: tagged by `kind`, so that later kinds only add.

A locked artifact says where each file comes from; the same artifact in a manifest says what each
file is (both digests), and nothing about any machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from airgap.format.artifact_rules import check_files, check_image, check_wheel_paths
from airgap.format.codec import Document
from airgap.format.rules import Choice, Range, Text
from airgap.format.types import (
    FileEntry,
    FileSize,
    Line,
    MediaType,
    Name,
    OciPlatform,
    Seconds,
    Sha256,
)

Url = Annotated[str, Text(r"https?://[^\s@\x00-\x1f]+", 2048, "a URL without credentials")]
GitBlob = Annotated[str, Text(r"[0-9a-f]{40}", 40, "a git blob id in 40 lower-case hex digits")]
ModelFormat = Annotated[str, Choice(("safetensors", "gguf"))]
# vLLM's largest --max-lora-rank is 512.
Rank = Annotated[int, Range(1, 512)]


@dataclass(frozen=True, kw_only=True)
class LockedFile(Document):
    """A file whose bytes are pinned. `url` says where to fetch it; without one, the store had it
    when it was locked and `label` says from where, never as a path of a machine.

    `git_blob`: its id in the Hub's git tree, where it is no LFS file. `uploaded`: when an index
    took it, in UTC seconds, where the index tells.
    """

    path: PurePosixPath
    sha256: Sha256
    size: FileSize
    label: Line
    url: Url | None = None
    git_blob: GitBlob | None = None
    uploaded: Seconds | None = None


@dataclass(frozen=True, kw_only=True)
class _LockedFiles(Document):
    name: Name
    files: tuple[LockedFile, ...]

    def validate(self) -> None:
        check_files(self.files)


@dataclass(frozen=True, kw_only=True)
class LockedModel(_LockedFiles):
    """A model whose every file is pinned. `revision` is a commit, or a digest of the files."""

    kind: Annotated[str, Choice(("model",))] = "model"
    source: Line
    revision: Line
    format: ModelFormat
    publisher: Line
    licence: Line


@dataclass(frozen=True, kw_only=True)
class LockedAdapter(_LockedFiles):
    """A LoRA adapter. `base` names the model artifact of this lock that it belongs to; `rank` is
    the LoRA rank that its configuration states."""

    kind: Annotated[str, Choice(("adapter",))] = "adapter"
    source: Line
    revision: Line
    base: Name
    rank: Rank
    publisher: Line
    licence: Line


@dataclass(frozen=True, kw_only=True)
class LockedWheels(_LockedFiles):
    """A set of wheels that install together, each pinned."""

    kind: Annotated[str, Choice(("wheels",))] = "wheels"
    requirements: tuple[Line, ...]

    def validate(self) -> None:
        check_files(self.files)
        check_wheel_paths(f.path for f in self.files)


@dataclass(frozen=True, kw_only=True)
class LockedImage(_LockedFiles):
    """A container image, every blob of it pinned by digest. See `Image`."""

    kind: Annotated[str, Choice(("image",))] = "image"
    reference: Line
    platform: OciPlatform
    digest: Sha256
    media_type: MediaType

    def validate(self) -> None:
        check_files(self.files)
        check_image(self.digest, self.files)


@dataclass(frozen=True, kw_only=True)
class LockedPlainFiles(_LockedFiles):
    """Plain files by URL and digest: vocabularies, kernels, whatever a runtime would fetch."""

    kind: Annotated[str, Choice(("files",))] = "files"


@dataclass(frozen=True, kw_only=True)
class _Files(Document):
    name: Name
    files: tuple[FileEntry, ...]

    def validate(self) -> None:
        check_files(self.files)


@dataclass(frozen=True, kw_only=True)
class Model(_Files):
    """A model in a manifest: the tree that the engine is started on.

    `chat_template` is the SHA-256 of the template's text (airgap.format.chat_template), where the
    model has one: the engine is started with exactly that.
    """

    kind: Annotated[str, Choice(("model",))] = "model"
    source: Line
    revision: Line
    format: ModelFormat
    publisher: Line
    licence: Line
    chat_template: Sha256 | None = None


@dataclass(frozen=True, kw_only=True)
class Adapter(_Files):
    """A LoRA adapter in a manifest, for the model artifact `base`."""

    kind: Annotated[str, Choice(("adapter",))] = "adapter"
    source: Line
    revision: Line
    base: Name
    rank: Rank
    publisher: Line
    licence: Line


@dataclass(frozen=True, kw_only=True)
class Wheels(_Files):
    """Wheels in a manifest; `path` is the wheel's file name (PEP 427).

    `newest`: when an index took the youngest of them, UTC seconds, of those whose index tells.
    """

    kind: Annotated[str, Choice(("wheels",))] = "wheels"
    requirements: tuple[Line, ...]
    newest: Seconds | None = None

    def validate(self) -> None:
        check_files(self.files)
        check_wheel_paths(f.path for f in self.files)


@dataclass(frozen=True, kw_only=True)
class Image(_Files):
    """A container image in a manifest, for one platform.

    `digest` is the SHA-256 of the platform's own manifest, whose raw bytes are the file
    `manifest.json` and whose type is `media_type` (OCI, or Docker v2s2). Further files: the
    `config.json`, `layers/NNN` in order, and `index.json` where the reference is an index.
    """

    kind: Annotated[str, Choice(("image",))] = "image"
    reference: Line
    platform: OciPlatform
    digest: Sha256
    media_type: MediaType

    def validate(self) -> None:
        check_files(self.files)
        check_image(self.digest, self.files)


@dataclass(frozen=True, kw_only=True)
class PlainFiles(_Files):
    """Plain files in a manifest."""

    kind: Annotated[str, Choice(("files",))] = "files"


LockedArtifact = LockedModel | LockedAdapter | LockedWheels | LockedImage | LockedPlainFiles
Artifact = Model | Adapter | Wheels | Image | PlainFiles
