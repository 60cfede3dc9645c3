"""A new version is on probation: when its engine is given up within that time, the version that
served before comes back by itself (docs/decisions/0041-probation.md)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import Name, Seconds, Version
from airgap.host.paths import HostPaths


@dataclass(frozen=True, kw_only=True)
class Probation(Document):
    """`version` was switched to and is on probation until `until`, in UTC POSIX seconds."""

    schema: Annotated[str, Choice(("sealift.probation/1",))] = "sealift.probation/1"
    name: Name
    version: Version
    until: Seconds


def begin(paths: HostPaths, name: str, version: str, seconds: int) -> None:
    """Put a version on probation; `seconds` of 0 ends whatever probation there is."""
    path = paths.probation(name)
    if not seconds:
        path.unlink(missing_ok=True)
        return
    state = Probation(name=name, version=version, until=int(time.time()) + seconds)
    fsio.write(path, state.to_bytes())


def on_probation(paths: HostPaths, name: str, version: str) -> bool:
    """Whether that version is current and its probation is not over."""
    return until(paths, name, version) is not None


def until(paths: HostPaths, name: str, version: str) -> int | None:
    """When the probation of that version ends, if it is current and on probation."""
    try:
        with open(paths.probation(name), "rb") as f:
            state = Probation.from_bytes(f.read(limits.MAX_LEDGER_ENTRY_BYTES))
    except (FileNotFoundError, FormatError):
        return None
    current = paths.current_version(name) == version
    if current and state.version == version and time.time() < state.until:
        return state.until
    return None
