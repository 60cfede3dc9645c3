"""Where a supervised engine listens, as its supervisor last wrote it.

True only while the supervisor's lock is held: read it through `live`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError, IntegrityError
from airgap.format import canonical
from airgap.format.codec import Document
from airgap.format.rules import Choice, Range
from airgap.format.types import Line, Port, Seconds
from airgap.host import locks, theirs
from airgap.host.paths import DeploymentPaths

# 1 is no daemon of ours, and its group is every process (killpg(3)).
Pid = Annotated[int, Range(2)]


@dataclass(frozen=True, kw_only=True)
class Endpoint(Document):
    """`state`: `up` while an engine process runs (healthy or not yet), `down` between a crash and
    the next start, `failed` when it is not started again.

    `engine` and `ticks` (start time in clock ticks since boot) name the engine process beyond
    reuse of its id. `user` is the numeric id of whoever is to listen on `port`. `crashes` counts
    since the supervisor began; `last_exit` says how it ended.
    """

    schema: Annotated[str, Choice(("sealift.endpoint/1",))] = "sealift.endpoint/1"
    host: Annotated[str, Choice(("127.0.0.1",))] = "127.0.0.1"
    port: Port
    user: Annotated[int, Range(0)]
    state: Annotated[str, Choice(("up", "down", "failed"))]
    supervisor: Pid
    engine: Pid
    ticks: Annotated[int, Range(0)]
    since: Seconds
    crashes: Annotated[int, Range(0)] = 0
    last_exit: Line = ""


def write(paths: DeploymentPaths, endpoint: Endpoint) -> None:
    """Replace it atomically. The front reads it, which may run as another user than we."""
    fsio.write(paths.endpoint, endpoint.to_bytes(), 0o644)


def read(paths: DeploymentPaths) -> Endpoint | None:
    """What was written last, by whomever; None when nothing was."""
    data = theirs.read(paths.endpoint, limits.MAX_LEDGER_ENTRY_BYTES)
    if data is None:
        return None
    try:
        return Endpoint.from_json(canonical.decode(data))
    except FormatError as e:
        raise IntegrityError(
            "deployment.damaged",
            f"{paths.endpoint} is not well-formed",
            why=e.why,
            do=f"stop {paths.name} and start it again: the file is made anew",
        ) from e


def live(paths: DeploymentPaths) -> Endpoint | None:
    """The endpoint written by the supervisor that is alive now, or None."""
    pid = locks.holder(paths.supervisor_lock)
    if pid is None:
        return None
    found = read(paths)
    return found if found is not None and found.supervisor == pid else None
