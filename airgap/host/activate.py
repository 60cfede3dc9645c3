"""Switching what serves: the new one starts beside the old one and takes over only when it passed.

Every step may be the last one that a killed run did; the same call again does the rest. A failure
before the end stops the new one and leaves `current` where it was.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from airgap import fsio, limits
from airgap.engines.registry import serving_plan
from airgap.errors import HostError
from airgap.events import Line, Sink, Warn, silent
from airgap.format.manifest import Manifest
from airgap.host import failover, launch, ledger, probation, services, smoke
from airgap.host.deployment import Deployment, load
from airgap.host.gateway import service as gateway
from airgap.host.paths import CURRENT, DeploymentPaths, HostPaths
from airgap.host.processes import Ahead
from airgap.host.smoke import Smoke

# Entries of the ledger that say which version began to serve.
SWITCHES = ("switch", "rollback", "return")
# Raises when a deployment may not serve any longer: revoked, expired, refused by policy.
Judge = Callable[[Manifest, str], None]


@dataclass(frozen=True)
class Active:
    """What serves after the call, what served before (None: nothing or the same), and the smoke
    test's results."""

    deployment: Deployment
    address: str
    previous: str | None
    smoke: Smoke


def address(manifest: Manifest) -> str:
    """The base URL for clients."""
    gateway = serving_plan(manifest).gateway
    if gateway is not None:
        return f"https://{socket.gethostname() or 'localhost'}:{gateway.port}/v1"
    return f"http://127.0.0.1:{serving_plan(manifest).port}/v1"


def activate(
    paths: HostPaths,
    manifest: Manifest,
    digest: str,
    sink: Sink = silent,
    *,
    probation_seconds: int = limits.PROBATION_SECONDS,
) -> Active:
    """Serve the staged deployment of `manifest` in place of the one that serves now.

    `probation_seconds`: how long the version before comes back by itself. The caller holds the
    host's lock and has judged the manifest. Raises ServingError (exit 9) when it does not come up
    or fails its checks, HostError when it is not staged or is another one.
    """
    deployment = load(paths, manifest.name, manifest.version)
    if deployment.digest != digest:
        raise HostError(
            "host.version-taken",
            f"{deployment.title} is on this host with another manifest",
            why=f"staged: {deployment.digest[:16]}, asked for: {digest[:16]}",
            do="give the bundle another version; two contents under one version are never mixed",
        )
    # Whatever was under way to another version, this one is wanted now.
    _forget_rollback(paths, manifest.name)
    return _switch(paths, deployment, sink, "switch", probation_seconds)


def _switch(
    paths: HostPaths, deployment: Deployment, sink: Sink, event: str, probation_seconds: int = 0
) -> Active:
    name, version = deployment.manifest.name, deployment.manifest.version
    with (
        services.front_ahead(paths, name) as ahead,
        _undone_on_failure(paths, deployment, sink) as before,
    ):
        services.start_engine(paths, deployment)
        results = smoke.smoke(deployment, sink)
        _bring_gateway(paths, deployment, sink)
        if before != version:
            # Before the link: of a version that is not current it says nothing.
            probation.begin(paths, name, version, probation_seconds if before else 0)
        fsio.symlink(version, paths.current_link(name))
        _bring_front(paths, deployment, sink, ahead)
        launch.at_boot(paths, name)
        _record(paths, deployment, event)
    failover.warn(paths, serving_plan(deployment.manifest), sink)
    _stop_others(paths, name, version, sink)
    _forget_rollback(paths, name)
    previous = _before(paths, name, version) if before in (None, version) else before
    where = address(deployment.manifest)
    was = f" (was: {name} {previous}, kept for rollback)" if previous else ""
    sink(Line("serving", f"{where}  model {serving_plan(deployment.manifest).name}{was}"))
    return Active(deployment, where, previous, results)


@contextlib.contextmanager
def _undone_on_failure(
    paths: HostPaths, deployment: Deployment, sink: Sink
) -> Iterator[str | None]:
    """Yields the version that is current. When the body fails: `current` back, the new engine
    stopped, the old front back. One that was current already is left as it is: nothing better
    is known."""
    name, version = deployment.manifest.name, deployment.manifest.version
    before = paths.current_version(name)
    try:
        yield before
    except BaseException:
        if before != version:
            _undo(paths, deployment, before, sink)
        raise


def _undo(paths: HostPaths, deployment: Deployment, before: str | None, sink: Sink) -> None:
    name = deployment.manifest.name
    if paths.current_version(name) != before:
        if before is None:
            services.stop_front(paths, name)
            with fsio.disk_errors(f"removing {paths.current_link(name)}"):
                os.unlink(paths.current_link(name))
                fsio.fsync_dir(paths.name_folder(name))
        else:
            fsio.symlink(before, paths.current_link(name))
            old = serving_plan(load(paths, name, before).manifest)
            services.start_front(paths, name, old.port)
            if old.gateway is not None:
                services.start_door(paths, name, old.gateway.port)
    services.stop_engine(paths, deployment.paths)
    if before is not None:
        sink(Warn("serving.kept", f"{name} {before} serves on; {deployment.title} was stopped"))


def _bring_gateway(paths: HostPaths, deployment: Deployment, sink: Sink) -> None:
    """Ready before the switch, so that there is no gap behind the door."""
    if gateway.has_gateway(deployment):
        services.start_gateway(paths, deployment)
        gateway.wait_ready(paths, deployment, sink)


def _bring_front(paths: HostPaths, deployment: Deployment, sink: Sink, ahead: Ahead | None) -> None:
    """The public ports answer, and with the approved model."""
    serve = serving_plan(deployment.manifest)
    name = deployment.manifest.name
    services.start_front(paths, name, serve.port, ahead)
    smoke.check_models(serve, serve.port)
    if serve.gateway is None:
        services.stop_door(paths, name)
        return
    gateway.check_through(deployment, sink)
    services.start_door(paths, name, serve.gateway.port)


def _record(paths: HostPaths, deployment: Deployment, event: str) -> None:
    """One entry a switch: a rerun after a kill between link and ledger adds the missing one."""
    manifest, record = deployment.manifest, deployment.record
    data = {"name": manifest.name, "version": manifest.version, "manifest": deployment.digest}
    if record.environment is not None:
        data["environment"] = record.environment
    if record.gateway is not None:
        data["gateway"] = record.gateway
    served = _switches(paths, manifest.name)
    if not served or served[-1].data != data:
        ledger.append(paths.ledger, event, data)


def _switches(paths: HostPaths, name: str) -> list[ledger.Entry]:
    chain = ledger.read(paths.ledger)
    return [e for e in chain.entries if e.event in SWITCHES and e.data.get("name") == name]


def history(paths: HostPaths, name: str) -> tuple[tuple[str, str], ...]:
    """Versions of NAME and their manifests' digests in the order in which they began to serve."""
    return tuple((e.data["version"], e.data["manifest"]) for e in _switches(paths, name))


def last_switch(paths: HostPaths, name: str, version: str) -> ledger.Entry | None:
    """What the ledger noted when that version began to serve last: `manifest`, and `environment`
    and `gateway`, the SHA-256 of their lists, where it has them. None when it never did."""
    found = reversed(_switches(paths, name))
    return next((e for e in found if e.data["version"] == version), None)


def _before(paths: HostPaths, name: str, version: str) -> str | None:
    """The version that served before `version` did, and is still here."""
    for earlier, digest in reversed(history(paths, name)):
        if earlier != version and _is_here(paths, name, earlier, digest):
            return earlier
    return None


def _is_here(paths: HostPaths, name: str, version: str, digest: str) -> bool:
    try:
        return load(paths, name, version).digest == digest
    except HostError:
        return False


def versions(paths: HostPaths, name: str) -> tuple[str, ...]:
    """Versions of NAME that have a folder here, complete or not."""
    folder = paths.name_folder(name)
    if not folder.is_dir():
        return ()
    found = (p.name for p in folder.iterdir() if not p.is_symlink() and p.is_dir())
    return tuple(sorted(v for v in found if not v.startswith(".") and v != CURRENT))


def _stop_others(paths: HostPaths, name: str, version: str, sink: Sink) -> None:
    """Every other version of NAME ends, after its open connections or DRAIN_SECONDS."""
    places = []
    for other in versions(paths, name):
        place = paths.deployment(name, other)
        if other == version:
            continue
        if not (services.drain(place.gateway) and services.drain(place)):
            sink(Warn("serving.drain", f"{name} {other}: connections were still open; they break"))
        places.append(place)
    _end_all(paths, places)


def _end_all(paths: HostPaths, places: Iterable[DeploymentPaths]) -> bool:
    """False when none was alive."""
    return services.every(partial(services.stop_engine, paths, p) for p in places)


def start(paths: HostPaths, name: str, judge: Judge, sink: Sink = silent) -> Active:
    """Serve what is current again, after a stop or a restart of the host.

    The caller holds the host's lock. Raises HostError `host.not-staged`, what `judge` raises,
    ServingError.
    """
    deployment = current(paths, name)
    judge(deployment.manifest, deployment.digest)
    return _switch(paths, deployment, sink, "switch")


def current(paths: HostPaths, name: str) -> Deployment:
    """The deployment that `current` points at. Raises HostError `host.not-staged`."""
    version = paths.current_version(name)
    if version is None:
        raise HostError(
            "host.not-staged",
            f"nothing serves as {name}",
            why="no deployment of that name is current",
            do="install its bundle; `airgap status` lists what is here",
        )
    return load(paths, name, version)


def rollback(
    paths: HostPaths,
    name: str,
    judge: Judge,
    sink: Sink = silent,
    *,
    version: str | None = None,
    event: str = "rollback",
) -> Active:
    """Serve the version that served before (or `version`), in place of the current one.

    The caller holds the host's lock. Raises HostError `host.no-rollback` when there is none, what
    `judge` raises, ServingError.
    """
    now = current(paths, name)
    begun = _rolling_back(paths, name)
    target = version or begun or _before(paths, name, now.manifest.version)
    if target is None or (target == now.manifest.version and target != begun):
        raise HostError(
            "host.no-rollback",
            f"{now.title} cannot be rolled back",
            why="no other version of it that served here is still on this host",
            do="install the bundle of the version you want",
        )
    deployment = load(paths, name, target)
    judge(deployment.manifest, deployment.digest)
    # A kill behind the switch would make "the one before" the one that was left.
    fsio.write(paths.rollback_note(name), target.encode())
    try:
        return _switch(paths, deployment, sink, event)
    except BaseException:
        if paths.current_version(name) != target:
            _forget_rollback(paths, name)
        raise


def _forget_rollback(paths: HostPaths, name: str) -> None:
    if paths.rollback_note(name).exists():
        with fsio.disk_errors(f"removing {paths.rollback_note(name)}"):
            paths.rollback_note(name).unlink()
            fsio.fsync_dir(paths.name_folder(name))


def _rolling_back(paths: HostPaths, name: str) -> str | None:
    """Where a rollback that was killed went to, as long as that is here."""
    found = fsio.read_if_there(paths.rollback_note(name), limits.KIB)
    version = None if found is None else found.decode("utf-8", "replace")
    return version if version in versions(paths, name) else None


def stop(paths: HostPaths, name: str, sink: Sink = silent) -> bool:
    """End the front and every engine of NAME; False when nothing ran. `current` stays.

    The caller holds the host's lock.
    """
    ended = services.stop_front(paths, name)
    places = [paths.deployment(name, version) for version in versions(paths, name)]
    ended = _end_all(paths, places) or ended
    if ended:
        ledger.append(paths.ledger, "stop", {"name": name})
    sink(Line("stop", f"{name} {'ended' if ended else 'was not running'}"))
    return ended
