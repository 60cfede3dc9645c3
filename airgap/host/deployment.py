"""A staged deployment: complete on disk, and the record that says so."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError, HostError, IntegrityError
from airgap.format.artifacts import PlainFiles
from airgap.format.codec import Document
from airgap.format.manifest import Manifest
from airgap.format.rules import Choice
from airgap.format.types import FileEntry, Line, Name, Seconds, Sha256, Version
from airgap.host.paths import DeploymentPaths, HostPaths


@dataclass(frozen=True, kw_only=True)
class DeploymentRecord(Document):
    """`deployment.json`, written last and fsynced: its presence means that all the rest is there.

    `python` and `installer` say what made the environment, for people. `environment` and `gateway`
    are the SHA-256 of their lists of checksums (airgap.host.seal).
    """

    schema: Annotated[str, Choice(("sealift.deployment/1",))] = "sealift.deployment/1"
    name: Name
    version: Version
    manifest: Sha256
    engine: Line
    python: Line
    installer: Line
    staged: Seconds
    environment: Sha256 | None = None
    gateway: Sha256 | None = None


@dataclass(frozen=True)
class Deployment:
    """A complete deployment with the manifest that was approved; `digest` is its SHA-256."""

    paths: DeploymentPaths
    manifest: Manifest
    digest: str
    record: DeploymentRecord

    @property
    def title(self) -> str:
        return f"{self.manifest.name} {self.manifest.version}"


def trees(place: DeploymentPaths, manifest: Manifest) -> Iterator[tuple[Path, FileEntry]]:
    """Every file that the engine is started on, and where it is linked: the model, the adapters
    that are served, plain files. The wheels are not among them."""
    found = [(place.model, manifest.model_to_serve().files)]
    found += [(place.adapter(a.name), a.files) for a in manifest.adapters_to_serve()]
    for artifact in manifest.artifacts:
        if isinstance(artifact, PlainFiles):
            found.append((place.plain_files(artifact.name), artifact.files))
    for folder, files in found:
        for f in files:
            yield folder / f.path, f


def load(paths: HostPaths, name: str, version: str) -> Deployment:
    """Read a complete deployment.

    Raises HostError `host.not-staged` when it is absent or incomplete, IntegrityError
    `deployment.damaged` when its own files contradict each other or a file is not whole.
    """
    place = paths.deployment(name, version)
    record = read_record(place)
    if record is None:
        raise HostError(
            "host.not-staged",
            f"{name} {version} is not on this host",
            why=f"{place.folder} holds no complete deployment",
            do="install its bundle; `airgap status` lists what is here",
        )
    data = _read(place, "manifest.json")
    try:
        manifest = Manifest.from_bytes(data)
    except FormatError as e:
        raise _damaged(place, f"its manifest is not well-formed: {e.why}") from e
    digest = hashlib.sha256(data).hexdigest()
    if (digest, manifest.name, manifest.version) != (record.manifest, name, version):
        raise _damaged(place, "its manifest is not the one that was staged")
    _check_files(place, manifest)
    return Deployment(place, manifest, digest, record)


def read_record(place: DeploymentPaths) -> DeploymentRecord | None:
    """The record of a complete deployment, or None when there is none."""
    if not os.path.lexists(place.record):
        return None
    try:
        return DeploymentRecord.from_bytes(_read(place, "deployment.json"))
    except FormatError as e:
        raise _damaged(place, f"its deployment.json is not well-formed: {e.why}") from e


def _read(place: DeploymentPaths, filename: str) -> bytes:
    path = place.folder / filename
    with fsio.disk_errors(f"reading {path}"), open(path, "rb") as f:
        return f.read(limits.MAX_DOCUMENT_BYTES + 1)


def _check_files(place: DeploymentPaths, manifest: Manifest) -> None:
    """Every file is there, regular and of its size; its bytes are the store's to check. Only the
    template is no blob: it is short, and read again."""
    for path, f in trees(place, manifest):
        name = path.relative_to(place.folder)
        try:
            st = os.lstat(path)
        except FileNotFoundError as e:
            raise _damaged(place, f"the file {name} is missing") from e
        if not stat.S_ISREG(st.st_mode) or st.st_size != f.size:
            raise _damaged(place, f"{name} is not a file of {f.size} bytes")
    wanted = manifest.model_to_serve().chat_template
    if wanted is not None:
        if not os.path.lexists(place.chat_template):
            raise _damaged(place, "the chat template is missing")
        data = _read(place, place.chat_template.name)
        if hashlib.sha256(data).hexdigest() != wanted:
            raise _damaged(place, "the chat template is not the approved one")


def _damaged(place: DeploymentPaths, why: str) -> IntegrityError:
    return IntegrityError(
        "deployment.damaged",
        f"the deployment {place.name} {place.version} was changed after it was staged",
        why=why,
        do=f"stop it, remove {place.folder} and install its bundle again",
    )
