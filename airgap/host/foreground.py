"""Serving in the foreground: the daemons are the same, this process waits and takes them along."""

from __future__ import annotations

import signal
import time
import types

from airgap.engines.registry import serving_plan
from airgap.errors import HostError, ServingError
from airgap.events import Sink, silent
from airgap.host import activate, endpoint, locks, logs, services
from airgap.host.activate import Judge
from airgap.host.deployment import Deployment
from airgap.host.paths import HostPaths

_STOP = (signal.SIGINT, signal.SIGTERM)
_LOOK_SECONDS = 1.0


def run_foreground(paths: HostPaths, name: str, judge: Judge, sink: Sink = silent) -> int:
    """Serve what is current until SIGINT or SIGTERM, then stop it; returns 0.

    Takes the host's lock only while it starts and stops. Raises what `activate.start` raises,
    KeyboardInterrupt when it was interrupted before it served, and ServingError
    `serving.engine-died` when the engine crashes too often. Call it from the main thread: it
    takes the two signals over. HostError `host.already-running` when NAME serves already.
    """
    with paths.exclusive("airgap run"):
        _must_not_run(paths, name)
    old = {number: signal.signal(number, _interrupt) for number in _STOP}
    active = None
    try:
        with paths.exclusive("airgap run"):
            active = activate.start(paths, name, judge, sink)
        _watch(paths, active.deployment)
    except KeyboardInterrupt:
        if active is None:
            raise
    finally:
        for number in _STOP:
            signal.signal(number, signal.SIG_IGN)
        with paths.exclusive("airgap run"):
            activate.stop(paths, name, sink)
        for number, handler in old.items():
            signal.signal(number, handler)
    return 0


def _must_not_run(paths: HostPaths, name: str) -> None:
    """What this command ends at its end must be what it began."""
    places = [paths.deployment(name, v) for v in activate.versions(paths, name)]
    if any(locks.holder(p.supervisor_lock) for p in places):
        raise HostError(
            "host.already-running",
            f"{name} cannot be served in the foreground",
            why="it is served in the background already",
            do=f"run `airgap stop {name}` first, or leave it as it is",
        )


def _interrupt(_number: int, _frame: types.FrameType | None) -> None:
    raise KeyboardInterrupt


def _watch(paths: HostPaths, deployment: Deployment) -> None:
    """Until a signal ends it (KeyboardInterrupt). A front that died is started again; an engine is
    its supervisor's."""
    place = deployment.paths
    serve = serving_plan(deployment.manifest)
    while True:
        where = endpoint.live(place)
        if where is None or where.state == "failed":
            raise ServingError(
                "serving.engine-died",
                f"{deployment.title} does not serve any longer",
                why=logs.tail(place.engine_log) or "its supervisor is gone",
                do=f"look at {place.engine_log}, then run the same command again",
            )
        services.start_front(paths, place.name, serve.port)
        if serve.gateway is not None:
            services.start_door(paths, place.name, serve.gateway.port)
        time.sleep(_LOOK_SECONDS)
