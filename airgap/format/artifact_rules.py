"""What holds for every list of files and for a serving plan beside its artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

from airgap import limits
from airgap.errors import FormatError
from airgap.format.names import check_unique
from airgap.format.types import Serve


class HasPath(Protocol):
    """A file of an artifact."""

    @property
    def path(self) -> PurePosixPath: ...


class HasDigest(HasPath, Protocol):
    """A file with its identity."""

    @property
    def sha256(self) -> str: ...


class HasKind(Protocol):
    """An artifact: what it is and how it is called."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...


A = TypeVar("A", bound=HasKind)


def check_files(files: Sequence[HasPath]) -> None:
    """At least one file, sorted by path, no collision."""
    if not files:
        raise FormatError("format.value", "files", "the artifact has no files")
    if len(files) > limits.MAX_FILES:
        raise FormatError("format.value", "files", f"more than {limits.MAX_FILES} files")
    paths = [str(f.path) for f in files]
    if paths != sorted(paths):
        raise FormatError("format.value", "files", "the files are not sorted by path")
    check_unique(paths, "files")


def check_wheel_paths(paths: Iterable[PurePosixPath]) -> None:
    """Wheels lie flat and are called NAME-VERSION(-BUILD)-PY-ABI-PLATFORM.whl."""
    for path in paths:
        if path.suffix != ".whl" or len(path.parts) != 1 or str(path).count("-") not in (4, 5):
            raise FormatError("format.value", "files", f"'{path}' is not a wheel's file name")


def check_image(digest: str, files: Sequence[HasDigest]) -> None:
    """`manifest.json` is the file of the image's own digest."""
    own = [f for f in files if str(f.path) == "manifest.json"]
    if len(own) != 1 or own[0].sha256 != digest:
        raise FormatError("format.value", "digest", "manifest.json is not the file of this digest")


def wheel_name_version(filename: str) -> tuple[str, str]:
    """Distribution name as written and version, from a wheel's file name (PEP 427)."""
    name, version, *_ = filename.split("-")
    return name, version


def check_artifacts(artifacts: Sequence[HasKind]) -> None:
    """Names are unique and sorted."""
    names = [a.name for a in artifacts]
    if len(set(names)) != len(names):
        raise FormatError("format.value", "artifacts", "two artifacts have one name")
    if names != sorted(names):
        raise FormatError("format.value", "artifacts", "the artifacts are not sorted by name")


def check_serve(serve: Serve | None, artifacts: Sequence[HasKind]) -> None:
    """The serving plan points at artifacts that are there."""
    if serve is None:
        return
    pick(artifacts, "model", serve.model, "serve.model")
    if serve.runtime == "venv":
        pick(artifacts, "wheels", serve.wheels, "serve.wheels")
    else:
        pick(artifacts, "image", serve.image, "serve.image")
    for adapter in serve.adapters:
        pick(artifacts, "adapter", adapter, "serve.adapters")
    if serve.vocabularies is not None:
        pick(artifacts, "files", serve.vocabularies, "serve.vocabularies")
    if serve.gateway is not None and serve.gateway.image is not None:
        pick(artifacts, "image", serve.gateway.image, "serve.gateway.image")
    elif serve.gateway is not None:
        pick(artifacts, "wheels", serve.gateway.wheels, "serve.gateway.wheels")


def pick(artifacts: Sequence[A], kind: str, name: str | None, where: str) -> A:
    """The artifact of `kind` called `name`, or the only one of its kind when name is None.

    `where` is the key that names it, for the FormatError."""
    found = [a for a in artifacts if a.kind == kind and name in (None, a.name)]
    if len(found) != 1:
        wanted = f"'{name}'" if name else "without a name"
        raise FormatError(
            "format.value", where, f"{wanted}: {len(found)} artifacts of the kind '{kind}' match"
        )
    return found[0]
