"""Artifacts of a lock and of a manifest: tagged by `kind`, so that later kinds only add."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from airgap import limits
from airgap.errors import FormatError
from airgap.format.codec import Choice, Document, Text
from airgap.format.names import check_unique
from airgap.format.types import FileEntry, FileSize, Line, Name, Serve, Sha256

Url = Annotated[str, Text(r"https?://[^\s@\x00-\x1f]+", 2048, "a URL without credentials")]
ModelFormat = Annotated[str, Choice(("safetensors", "gguf"))]


@dataclass(frozen=True, kw_only=True)
class LockedFile(Document):
    """A file whose bytes are pinned. `url` says where to fetch it; without one, the store had it
    when it was locked and `label` says from where, never as a path of a machine."""

    path: PurePosixPath
    sha256: Sha256
    size: FileSize
    label: Line
    url: Url | None = None


@dataclass(frozen=True, kw_only=True)
class LockedModel(Document):
    """A model whose every file is pinned."""

    kind: Annotated[str, Choice(("model",))] = "model"
    name: Name
    source: Line
    revision: Line
    format: ModelFormat
    publisher: Line
    licence: Line
    files: tuple[LockedFile, ...]

    def validate(self) -> None:
        check_files(self.files)


@dataclass(frozen=True, kw_only=True)
class LockedWheels(Document):
    """A set of wheels that install together, each pinned."""

    kind: Annotated[str, Choice(("wheels",))] = "wheels"
    name: Name
    requirements: tuple[Line, ...]
    files: tuple[LockedFile, ...]

    def validate(self) -> None:
        check_files(self.files)
        check_wheel_paths(f.path for f in self.files)


@dataclass(frozen=True, kw_only=True)
class Model(Document):
    """A model in a manifest: the tree that the engine is started on."""

    kind: Annotated[str, Choice(("model",))] = "model"
    name: Name
    source: Line
    revision: Line
    format: ModelFormat
    publisher: Line
    licence: Line
    files: tuple[FileEntry, ...]

    def validate(self) -> None:
        check_files(self.files)


@dataclass(frozen=True, kw_only=True)
class Wheels(Document):
    """Wheels in a manifest; `path` is the wheel's file name (PEP 427)."""

    kind: Annotated[str, Choice(("wheels",))] = "wheels"
    name: Name
    requirements: tuple[Line, ...]
    files: tuple[FileEntry, ...]

    def validate(self) -> None:
        check_files(self.files)
        check_wheel_paths(f.path for f in self.files)


AnyArtifact = LockedModel | LockedWheels | Model | Wheels


def check_files(files: tuple[LockedFile, ...] | tuple[FileEntry, ...]) -> None:
    """At least one file, sorted by path, no collision."""
    if not files:
        raise FormatError("format.value", "files", "the artifact has no files")
    if len(files) > limits.MAX_FILES:
        raise FormatError("format.value", "files", f"more than {limits.MAX_FILES} files")
    paths = [f.path for f in files]
    if paths != sorted(paths, key=str):
        raise FormatError("format.value", "files", "the files are not sorted by path")
    check_unique(paths, "files")


def check_wheel_paths(paths: Iterable[PurePosixPath]) -> None:
    """Wheels lie flat and are called NAME-VERSION(-BUILD)-PY-ABI-PLATFORM.whl."""
    for path in paths:
        if path.suffix != ".whl" or len(path.parts) != 1 or str(path).count("-") not in (4, 5):
            raise FormatError("format.value", "files", f"'{path}' is not a wheel's file name")


def wheel_name_version(filename: str) -> tuple[str, str]:
    """Distribution name as written and version, from a wheel's file name (PEP 427)."""
    name, version, *_ = filename.split("-")
    return name, version


def check_serve(serve: Serve | None, artifacts: tuple[AnyArtifact, ...]) -> None:
    """The serving plan must point at artifacts that are there; names of artifacts are unique."""
    names = [a.name for a in artifacts]
    if len(set(names)) != len(names):
        raise FormatError("format.value", "artifacts", "two artifacts have one name")
    if names != sorted(names):
        raise FormatError("format.value", "artifacts", "the artifacts are not sorted by name")
    if serve is not None:
        pick(artifacts, "model", serve.model)
        if serve.runtime == "venv":
            pick(artifacts, "wheels", serve.wheels)


def pick(artifacts: tuple[AnyArtifact, ...], kind: str, name: str | None) -> AnyArtifact:
    """The artifact of `kind` called `name`, or the only one of its kind when name is None."""
    found = [a for a in artifacts if a.kind == kind and name in (None, a.name)]
    if len(found) != 1:
        wanted = f"'{name}'" if name else "without a name"
        raise FormatError(
            "format.value", f"serve.{kind}", f"{wanted}: {len(found)} artifacts of that kind match"
        )
    return found[0]
