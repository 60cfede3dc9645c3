"""What is on this host, and which blobs of the store each thing needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import FormatError, HostError, SealiftError
from airgap.format.manifest import Manifest
from airgap.host import activate, services
from airgap.host.activate import Judge, versions
from airgap.host.deployment import load
from airgap.host.paths import HostPaths


@dataclass(frozen=True)
class Holding:
    """One NAME VERSION: deployed, or kept in the store alone. `manifest` is None when what lies
    there cannot be read; `whole`: a deployment whose record was written."""

    name: str
    version: str
    manifest: Manifest | None
    whole: bool
    stored_only: bool = False

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


def names(paths: HostPaths) -> list[str]:
    """Every NAME that has something here."""
    found: set[str] = set()
    for folder in (paths.deployments, paths.stored):
        if folder.is_dir():
            found |= {p.name for p in folder.iterdir() if p.is_dir() and not p.is_symlink()}
    return sorted(found)


def holdings(paths: HostPaths, name: str | None = None) -> tuple[Holding, ...]:
    """Everything that is here, or everything of that NAME."""
    out: list[Holding] = []
    for each in [name] if name else names(paths):
        for version in versions(paths, each):
            place = paths.deployment(each, version)
            manifest = _read(place.manifest)
            out.append(Holding(each, version, manifest, os.path.lexists(place.record)))
        deployed = {h.version for h in out if h.name == each}
        for version, manifest in _stored(paths, each):
            if version not in deployed:
                out.append(Holding(each, version, manifest, True, stored_only=True))
    return tuple(out)


def _stored(paths: HostPaths, name: str) -> Iterator[tuple[str, Manifest | None]]:
    folder = paths.stored / name
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        yield path.name.removesuffix(".json"), _read(path)


def _read(path: Path) -> Manifest | None:
    try:
        with fsio.disk_errors(f"reading {path}"), open(path, "rb") as f:
            return Manifest.from_bytes(f.read(limits.MAX_DOCUMENT_BYTES + 1))
    except (FormatError, SealiftError):
        return None


def used(kept: tuple[Holding, ...]) -> set[str]:
    """SHA-256 of every blob that those need."""
    return {b.sha256 for h in kept if h.manifest is not None for b in h.manifest.blobs()}


def ways_back(paths: HostPaths, name: str, judge: Judge) -> list[str]:
    """Versions that served before the current one, are whole and still approved, newest first."""
    current = paths.current_version(name)
    found: list[str] = []
    for version, digest in reversed(activate.history(paths, name)):
        if version == current or version in found:
            continue
        try:
            deployment = load(paths, name, version)
            judge(deployment.manifest, deployment.digest)
        except SealiftError:
            continue  # what cannot serve again is no way back; `airgap status` says why
        if deployment.digest == digest:
            found.append(version)
    return found


def is_active(paths: HostPaths, name: str, version: str) -> bool:
    """Whether it is current or runs."""
    return paths.current_version(name) == version or services.runs(paths, name, version)


def must_have(paths: HostPaths, name: str, version: str | None) -> tuple[Holding, ...]:
    """Those of NAME, or that one version. Raises HostError `host.not-staged`."""
    found = tuple(h for h in holdings(paths, name) if version in (None, h.version))
    if not found:
        raise HostError(
            "host.not-staged",
            f"{name}{' ' + version if version else ''} is not on this host",
            why="nothing of that name lies here",
            do="`airgap status` lists what is here",
        )
    return found
