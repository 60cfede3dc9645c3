"""Starting and ending the two kinds of daemons: an engine's supervisor and a NAME's front."""

from __future__ import annotations

import time
from pathlib import Path

from airgap import limits
from airgap.errors import HostError
from airgap.host import endpoint, front, locks, processes
from airgap.host.deployment import Deployment
from airgap.host.paths import DeploymentPaths, HostPaths

# A supervisor gives its engine ENGINE_STOP_SECONDS and then kills it; leave it time for both.
_STOP_SECONDS = limits.ENGINE_STOP_SECONDS + 15
_POLL_SECONDS = 0.1
_TCP_ESTABLISHED = "01"


def start_engine(paths: HostPaths, deployment: Deployment) -> None:
    """Have a supervisor of that deployment alive with an engine process; one that gave up, or
    that is between two starts, is replaced."""
    place = deployment.paths
    where = endpoint.live(place)
    if where is not None and where.state == "up":
        return
    if where is not None:
        stop_engine(place)
    pid: int | None = None
    if locks.holder(place.supervisor_lock) is None:
        words = ("supervise", place.name, place.version)
        pid = processes.spawn(paths, place.supervisor_log, *words)
    what = f"the supervisor of {deployment.title}"
    processes.wait_until(lambda: endpoint.live(place) is not None, pid, place.supervisor_log, what)


def stop_engine(place: DeploymentPaths) -> bool:
    """End a deployment's supervisor and engine; False when none was alive."""
    return processes.terminate(place.supervisor_lock, _STOP_SECONDS)


def start_front(paths: HostPaths, name: str, port: int) -> None:
    """Have the front of NAME listening on `port`. Raises ServingError `serving.daemon`."""
    place = paths.front(name)
    alive = front.live(place)
    if alive is not None and alive.port == port:
        return
    stop_front(paths, name)
    pid = processes.spawn(paths, place.log, "front", name)
    what = f"the front of {name} on port {port}"
    processes.wait_until(lambda: _listens(paths, name, port), pid, place.log, what)


def _listens(paths: HostPaths, name: str, port: int) -> bool:
    state = front.live(paths.front(name))
    return state is not None and state.port == port


def stop_front(paths: HostPaths, name: str) -> bool:
    """End the front of NAME; open connections break. False when none was alive."""
    return processes.terminate(paths.front(name).lock, limits.ENGINE_STOP_SECONDS)


def drain(place: DeploymentPaths, seconds: float = limits.DRAIN_SECONDS) -> bool:
    """Wait until nobody has been connected to that engine for QUIET_SECONDS, at most `seconds`
    in all; whether all had left."""
    where = endpoint.live(place)
    begun = quiet = time.monotonic()
    while where is not None and time.monotonic() - quiet < limits.QUIET_SECONDS:
        if connections(where.port):
            quiet = time.monotonic()
            if quiet - begun > seconds:
                return False
        time.sleep(_POLL_SECONDS)
    return True


def connections(port: int) -> int:
    """Connections established to 127.0.0.1:`port`, from the kernel's own table (proc(5))."""
    try:
        lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    except OSError as e:
        raise HostError(
            "host.proc",
            "open connections cannot be counted",
            why=f"/proc/net/tcp cannot be read: {e.strerror}",
            do="mount /proc",
        ) from e
    rows = (line.split() for line in lines)
    ours = f":{port:04X}"
    return sum(1 for r in rows if r[1].endswith(ours) and r[3] == _TCP_ESTABLISHED)
