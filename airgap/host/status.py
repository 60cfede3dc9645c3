"""What is installed on this host and what of it runs."""

from __future__ import annotations

from dataclasses import dataclass

from airgap.engines.registry import serving_plan
from airgap.errors import SealiftError
from airgap.host import endpoint, front, ledger, listeners, locks, probation
from airgap.host.activate import SWITCHES, address, versions
from airgap.host.deployment import Deployment, load
from airgap.host.paths import HostPaths


@dataclass(frozen=True)
class Status:
    """One deployment.

    `state`: `serving` (current, all up), `unreachable` (current, engine up; front, door or gateway
    not), `restarting`, `failed` (crashed too often), `beside` (runs without being current),
    `stopped`, `incomplete` (a killed install), `damaged`. `since` is UTC POSIX seconds.
    `pids`: front, supervisor, engine, as far as they live. `manifest` is its SHA-256.
    `approved_by`: the officers who approved it, as this host read it at its installation.
    `served_since`: when it became current last. `probation_until`: see airgap.host.probation.
    """

    name: str
    version: str
    current: bool
    state: str
    since: int | None
    address: str | None
    pids: tuple[int, ...]
    manifest: str | None
    detail: str = ""
    approved_by: str = ""
    served_since: int | None = None
    probation_until: int | None = None


def status(paths: HostPaths) -> tuple[Status, ...]:
    """Every deployment, sorted by name and version. Needs no lock and changes nothing."""
    if not paths.deployments.is_dir():
        return ()
    names = sorted(p.name for p in paths.deployments.iterdir() if p.is_dir())
    return tuple(_one(paths, n, v) for n in names for v in versions(paths, n))


def _one(paths: HostPaths, name: str, version: str) -> Status:
    place = paths.deployment(name, version)
    is_current = paths.current_version(name) == version
    try:
        deployment = load(paths, name, version)
        where = endpoint.live(place)
        door = front.live(paths.front(name)) if is_current else None
        reachable = door is not None and _gateway_is_up(paths, deployment)
        supervisor = locks.holder(place.supervisor_lock)
    except SealiftError as e:
        state = "incomplete" if e.id == "host.not-staged" else "damaged"
        return Status(name, version, is_current, state, None, None, (), None, e.why)
    pids = [door.pid if door else None, supervisor]
    pids.append(where.engine if where is not None and where.state == "up" else None)
    return Status(
        name,
        version,
        is_current,
        _state(where, supervisor, current=is_current, door=reachable),
        where.since if where is not None else None,
        address(deployment.manifest) if door is not None else None,
        tuple(p for p in pids if p is not None),
        deployment.digest,
        _detail(place_crashes=where.crashes if where else 0, how=where.last_exit if where else ""),
        *_history(paths, deployment, current=is_current),
    )


def _gateway_is_up(paths: HostPaths, deployment: Deployment) -> bool:
    """True also where the approved plan names none."""
    if serving_plan(deployment.manifest).gateway is None:
        return True
    where = endpoint.live(deployment.paths.gateway)
    door = front.live(paths.door(deployment.manifest.name))
    if door is None or where is None or where.state != "up":
        return False
    return listeners.is_ours(where)  # it may live and listen nowhere


def _history(
    paths: HostPaths, deployment: Deployment, *, current: bool
) -> tuple[str, int | None, int | None]:
    """Officers, when it became current, until when it is on probation; from the ledger."""
    manifest = deployment.manifest
    try:
        chain = ledger.read(paths.ledger)
    except SealiftError as e:
        return f"unknown ({e.id})", None, None
    approved = ledger.last(chain, "approved", manifest=deployment.digest)
    named = {"name": manifest.name, "version": manifest.version}
    switches = [ledger.last(chain, kind, **named) for kind in SWITCHES]
    since = max((s.time for s in switches if s is not None), default=None) if current else None
    until = probation.until(paths, manifest.name, manifest.version)
    return approved.data["by"] if approved else "", since, until


def _state(
    where: endpoint.Endpoint | None, supervisor: int | None, *, current: bool, door: bool
) -> str:
    if where is None:
        return "stopped" if supervisor is None else "restarting"
    if where.state != "up":
        return {"down": "restarting", "failed": "failed"}[where.state]
    if not current:
        return "beside"
    return "serving" if door else "unreachable"


def _detail(*, place_crashes: int, how: str) -> str:
    if not place_crashes:
        return ""
    return f"{place_crashes} crashes; the last one {how}" if how else f"{place_crashes} crashes"
