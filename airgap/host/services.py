"""Starting and ending our daemons: supervisors of engine and gateway, front and door of a NAME."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from airgap import limits
from airgap.errors import IntegrityError, SealiftError
from airgap.host import endpoint, front, launch, listeners, locks, processes
from airgap.host.deployment import Deployment
from airgap.host.paths import DeploymentPaths, FrontPaths, HostPaths
from airgap.host.processes import Ahead

# A supervisor gives its engine ENGINE_STOP_SECONDS and then kills it; leave it time for both.
_STOP_SECONDS = limits.ENGINE_STOP_SECONDS + 15
_POLL_SECONDS = 0.1


def start_engine(paths: HostPaths, deployment: Deployment) -> None:
    """Have a supervisor of that deployment alive with an engine process; one that gave up, or
    that is between two starts, is replaced."""
    what = f"the supervisor of {deployment.title}"
    _start_part(paths, deployment.paths, what, "supervise", *_words(deployment.paths))


def start_gateway(paths: HostPaths, deployment: Deployment) -> None:
    """The same for its gateway."""
    what = f"the gateway of {deployment.title}"
    words = _words(deployment.paths)
    _start_part(paths, deployment.paths.gateway, what, "supervise-gateway", *words)


def _words(place: DeploymentPaths) -> tuple[str, str]:
    return place.name, place.version


def _start_part(paths: HostPaths, place: DeploymentPaths, what: str, *words: str) -> None:
    where = endpoint.live(place)
    if where is not None and where.state == "up":
        return
    if where is not None:
        launch.stop(paths, place.supervisor_lock, _STOP_SECONDS, *words)
    pid: int | None = None
    if locks.holder(place.supervisor_lock) is None:
        pid = launch.start(paths, place.supervisor_log, *words)
    processes.wait_until(lambda: endpoint.live(place) is not None, pid, place.supervisor_log, what)


def stop_engine(paths: HostPaths, place: DeploymentPaths) -> bool:
    """End a deployment's gateway, supervisor and engine; False when none was alive."""
    parts = ((place.gateway, "supervise-gateway"), (place, "supervise"))
    return every(
        partial(launch.stop, paths, part.supervisor_lock, _STOP_SECONDS, kind, *_words(place))
        for part, kind in parts
    )


def every(ends: Iterable[Callable[[], bool]]) -> bool:
    """Call all of them, also when one fails: its error is raised in the end. Whether any was True:
    one that cannot be ended keeps no other from its end."""
    ended = False
    failed: SealiftError | None = None
    for end in ends:
        try:
            ended = end() or ended
        except SealiftError as e:
            failed = failed or e
    if failed is not None:
        raise failed
    return ended


@contextlib.contextmanager
def front_ahead(paths: HostPaths, name: str) -> Iterator[Ahead | None]:
    """The front of NAME, if none is alive, loads while its engine does; it holds and opens nothing
    until `start_front`."""
    place = paths.front(name)
    ahead = None
    if locks.holder(place.lock) is None:
        ahead = launch.ahead(paths, place.log, "front", name)
    try:
        yield ahead
    finally:
        if ahead is not None:
            ahead.close()


def start_front(paths: HostPaths, name: str, port: int, ahead: Ahead | None = None) -> None:
    """Have the front of NAME listening on `port`. Raises ServingError `serving.daemon`."""
    _start_listener(paths, paths.front(name), port, "front", name, ahead)


def start_door(paths: HostPaths, name: str, port: int) -> None:
    """Have the door of NAME listening on `port`. Raises ServingError `serving.daemon`."""
    _start_listener(paths, paths.door(name), port, "door", name)


def _start_listener(
    paths: HostPaths,
    place: FrontPaths,
    port: int,
    kind: str,
    name: str,
    ahead: Ahead | None = None,
) -> None:
    if _listens(place, port):
        return
    _stop_listener(paths, place, kind, name)
    pid = ahead.go() if ahead is not None else launch.start(paths, place.log, kind, name)
    what = f"the {kind} of {name} on port {port}"
    processes.wait_until(lambda: _listens(place, port), pid, place.log, what)


def _listens(place: FrontPaths, port: int) -> bool:
    state = front.live(place)
    return state is not None and state.port == port


def stop_front(paths: HostPaths, name: str) -> bool:
    """End the front and the door of NAME; open connections break. False when none was alive."""
    door = stop_door(paths, name)
    return _stop_listener(paths, paths.front(name), "front", name) or door


def stop_door(paths: HostPaths, name: str) -> bool:
    """End the door of NAME alone."""
    return _stop_listener(paths, paths.door(name), "door", name)


def _stop_listener(paths: HostPaths, place: FrontPaths, kind: str, name: str) -> bool:
    return launch.stop(paths, place.lock, limits.ENGINE_STOP_SECONDS, kind, name)


def runs(paths: HostPaths, name: str, version: str) -> bool:
    """Whether anything of that deployment is alive."""
    place = paths.deployment(name, version)
    held = (place.supervisor_lock, place.gateway.supervisor_lock)
    return any(locks.holder(lock) is not None for lock in held)


def forget(paths: HostPaths, name: str, version: str | None) -> None:
    """Nothing is to bring that version, or the whole NAME, up again."""
    if version is not None:
        for kind in ("supervise", "supervise-gateway"):
            launch.forget(paths, kind, name, version)
        return
    for kind in ("front", "door"):
        launch.forget(paths, kind, name)
    launch.forget_boot(paths, name)


def drain(place: DeploymentPaths, seconds: float = limits.DRAIN_SECONDS) -> bool:
    """Wait until nobody has been connected to that engine for QUIET_SECONDS, at most `seconds`
    in all; whether all had left. One that spoiled what says where it listens is not waited for."""
    try:
        where = endpoint.live(place)
    except IntegrityError:
        return False
    begun = quiet = time.monotonic()
    while where is not None and time.monotonic() - quiet < limits.QUIET_SECONDS:
        if listeners.connections(where.port):
            quiet = time.monotonic()
            if quiet - begun > seconds:
                return False
        time.sleep(_POLL_SECONDS)
    return True
