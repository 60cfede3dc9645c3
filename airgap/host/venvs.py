"""Environments that deployments share: `venvs/KEY`, one for each set of wheels and Python.

Two versions of a bundle mostly differ in a model, an adapter or a prompt, and an environment of
vLLM has 2 GB: it is installed once. A deployment's `venv` is a link to it. The record is written
last, as a deployment's is: without it the folder is the rest of a killed run.
See docs/decisions/0020-shared-environments.md.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError, HostError
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import Line, Seconds, Sha256
from airgap.host.paths import DeploymentPaths, HostPaths

_KEY_CHARS = 16


@dataclass(frozen=True, kw_only=True)
class Environment(Document):
    """`key` is the SHA-256 of Python's version and the requirements file, `sums` that of the list
    of checksums made when it was complete; `installer` and `python` are for people."""

    schema: Annotated[str, Choice(("sealift.environment/1",))] = "sealift.environment/1"
    key: Sha256
    python: Line
    installer: Line
    built: Seconds
    sums: Sha256


@dataclass(frozen=True)
class EnvironmentPaths:
    """One shared environment."""

    folder: Path

    @property
    def venv(self) -> Path:
        return self.folder / "venv"

    @property
    def requirements(self) -> Path:
        return self.folder / "requirements.txt"

    @property
    def sums(self) -> Path:
        """SHA-256 of every file of `venv`: see airgap.host.seal."""
        return self.folder / "venv.sums"

    @property
    def record(self) -> Path:
        return self.folder / "environment.json"

    @property
    def unfinished(self) -> Path:
        """There while it is being made: what a kill leaves then belongs to nobody yet."""
        return self.folder / "unfinished"


def key_of(python: str, requirements: str) -> str:
    """`python` is the version that the wheels were locked for; `requirements` names each wheel by
    its hash."""
    return hashlib.sha256(f"python {python}\n{requirements}".encode()).hexdigest()


def place_of(folder: Path, key: str) -> EnvironmentPaths:
    """Below `folder`, under the first 64 bits of the key: paths in it get long enough."""
    return EnvironmentPaths(folder / key[:_KEY_CHARS])


def complete(place: EnvironmentPaths, key: str) -> Environment | None:
    """Its record, when all of it was written, its list is there, and its Python is where it was."""
    found = _recorded(place, key)
    return found if place.sums.is_file() and _has_python(place) else None


def _recorded(place: EnvironmentPaths, key: str) -> Environment | None:
    try:
        with open(place.record, "rb") as f:
            found = Environment.from_bytes(f.read(limits.MAX_LEDGER_ENTRY_BYTES))
    except (FileNotFoundError, NotADirectoryError, FormatError):
        return None
    return found if found.key == key else None


def _has_python(place: EnvironmentPaths) -> bool:
    """Through all links: a host may have lost the interpreter that it was made with."""
    return (place.venv / "bin" / "python").exists()


def mend(place: EnvironmentPaths, key: str) -> None:
    """Give it its list back from a deployment that has the same. The caller holds the host's lock.

    Raises HostError `host.environment-in-use` when it cannot be used, nor be made again without
    taking it away from what runs from it.
    """
    users = [] if complete(place, key) else _users(place)
    if not users or not _has_python(place) or place.unfinished.exists():
        return
    record = _recorded(place, key)
    sums = None if record is None else record.sums
    for user in users:
        listed = fsio.read_if_there(user / "venv.sums", limits.MAX_SUMS_BYTES)
        if listed is not None and hashlib.sha256(listed).hexdigest() == sums:
            fsio.write(place.sums, listed, 0o444)
            return
    names = ", ".join(sorted(" ".join(u.relative_to(_deployments(place)).parts) for u in users))
    raise HostError(
        "host.environment-in-use",
        f"{place.folder} has lost its record, and {names} runs from it",
        why="it cannot be told whether it is whole, and to make it again would take it away",
        do="run `airgap verify --installed`, then uninstall what runs from it and install both",
    )


def _deployments(place: EnvironmentPaths) -> Path:
    return place.folder.parents[1] / "deployments"


def _users(place: EnvironmentPaths) -> list[Path]:
    """Folders of deployments, or of their gateways, whose link names it."""
    return [p.parent for p in _links(_deployments(place)) if _target(p) == place.folder]


def _target(link: Path) -> Path:
    return Path(os.path.normpath(link.parent / os.readlink(link))).parent


def link(place: DeploymentPaths, shared: EnvironmentPaths) -> None:
    """Have the deployment use `shared`; the link is relative, so the root may be moved. The list
    of checksums is the first one: what was changed since then is not measured into a new one."""
    with fsio.disk_errors(f"reading {shared.sums}"):
        listed = shared.sums.read_bytes()
    fsio.write(place.sums, listed, 0o444)
    fsio.symlink(os.path.relpath(shared.venv, place.folder), place.venv)


def unused(paths: HostPaths) -> tuple[Path, ...]:
    """Folders of environments, complete or not, that no deployment's link names."""
    if not paths.venvs.is_dir():
        return ()
    used = {_target(p) for p in _links(paths.deployments)}
    return tuple(sorted(p for p in paths.venvs.iterdir() if p not in used))


def _links(deployments: Path) -> list[Path]:
    """Of engines, and of gateways, one folder deeper."""
    found = [*deployments.glob("*/*/venv"), *deployments.glob("*/*/gateway/venv")]
    return [p for p in found if p.is_symlink()]


def discard_unused(paths: HostPaths) -> tuple[Path, ...]:
    """Remove them; returns what was removed. The caller holds the host's lock."""
    found = unused(paths)
    for folder in found:
        remove(EnvironmentPaths(folder))
    return found


def remove(place: EnvironmentPaths) -> None:
    """The record first: what is half removed must not pass for complete."""
    with fsio.disk_errors(f"removing {place.folder}"):
        place.record.unlink(missing_ok=True)
    fsio.remove_tree(place.folder)
