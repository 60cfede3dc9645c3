"""What serves as systemd units: shown with systemd's own judgement, and moved to and fro."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from airgap.engines.registry import serving_plan
from airgap.events import Sink
from airgap.host import activate, inventory, launch, services
from airgap.host.deployment import load
from airgap.host.paths import HostPaths
from airgap.host.systemd import manager, units
from airgap.host.systemd import quadlet as quadlets


@dataclass(frozen=True)
class Unit:
    """A rendered unit; `before` and `after`: its exposure without and with the hardening."""

    name: str
    text: str
    before: str
    after: str


def daemons(paths: HostPaths, name: str) -> Iterator[tuple[str, ...]]:
    """The words of every daemon that NAME has when it serves."""
    version = paths.current_version(name)
    if version is None:
        return
    plan = serving_plan(load(paths, name, version).manifest)
    yield ("supervise", name, version)
    yield ("front", name)
    if plan.gateway is not None:
        yield ("supervise-gateway", name, version)
        yield ("door", name)


def show(paths: HostPaths, name: str) -> Iterator[Unit]:
    """The units of NAME. Raises HostError `host.systemd` when systemd finds an error in one."""
    rendered: dict[str, str] = {}
    for words in daemons(paths, activate.current(paths, name).manifest.name):
        rendered |= units.render(paths, launch.user_of(paths, *words), words)
    rendered |= units.render_boot(paths, name)
    with tempfile.TemporaryDirectory(dir=paths.root) as place:
        folder = Path(place)
        for unit, text in rendered.items():
            (folder / unit).write_text(text)
        manager.verify(folder, list(rendered))
        for unit, text in rendered.items():
            bare = folder / "bare" / unit
            bare.parent.mkdir(exist_ok=True)
            bare.write_text(units.without_hardening(text))
            yield Unit(unit, text, manager.exposure(bare), manager.exposure(folder / unit))


def quadlet(paths: HostPaths, name: str) -> dict[str, str]:
    """Quadlet's units of NAME's engine, by file name. Raises HostError `host.no-quadlet`."""
    return quadlets.render(paths, activate.current(paths, name))


def clear(paths: HostPaths) -> None:
    """Remove what the daemons of everything left in folders of their own: others are to run, as
    another user perhaps, and what one user left is not another's to trust."""
    for name in inventory.names(paths):
        folders = [paths.front(name).folder, paths.door(name).folder]
        for version in activate.versions(paths, name):
            place = paths.deployment(name, version)
            for part in (place, place.gateway):
                folders += [part.run, part.logs, part.tmp]
        for folder in folders:
            fsio.remove_tree(folder)


def stop_all(paths: HostPaths, sink: Sink) -> list[str]:
    """Stop everything and forget its units; returns the names that were served."""
    served = []
    for name in inventory.names(paths):
        version = paths.current_version(name)
        if version is not None and services.runs(paths, name, version):
            served.append(name)
        activate.stop(paths, name, sink)
        for each in activate.versions(paths, name):
            services.forget(paths, name, each)
        services.forget(paths, name, None)
    return served
