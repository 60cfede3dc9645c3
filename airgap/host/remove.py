"""Taking things off this host again: one version, one NAME, or whatever nothing needs.

The record goes first, so that what is half removed is never taken for whole; the manifest goes
last, so that the same command after a kill still knows which blobs it was about to remove.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from airgap import fsio
from airgap.errors import DiskError, HostError
from airgap.events import Line, Sink, silent
from airgap.format.artifacts import Image
from airgap.host import activate, inventory, ledger, services, venvs
from airgap.host.activate import Judge
from airgap.host.images import bring
from airgap.host.inventory import Holding
from airgap.host.paths import HostPaths
from airgap.store import Store


@dataclass(frozen=True)
class Removed:
    """What was (or would be) removed; `size` is the bytes of the blobs."""

    deployments: tuple[str, ...]
    blobs: int
    size: int


def uninstall(
    paths: HostPaths,
    name: str,
    version: str | None = None,
    sink: Sink = silent,
    *,
    stop: bool = False,
    purge: bool = False,
) -> Removed:
    """Remove that version of NAME, or all of them; `purge` also its blobs that nothing else needs.

    The caller holds the host's lock. Raises HostError `host.not-staged`, `host.serving`.
    """
    going = _going(paths, name, version)
    active = [h for h in going if inventory.is_active(paths, name, h.version)]
    if active and not stop:
        raise HostError(
            "host.serving",
            f"{active[0].title} is in use and was not removed",
            why="it serves, or would be served at the next start",
            do="add --stop to stop it first, or name a version that is not in use",
        )
    if active:
        activate.stop(paths, name, sink)
    staying = [h for h in inventory.holdings(paths) if h not in going]
    blobs = inventory.used(going) - inventory.used(tuple(staying)) if purge else set()
    sizes = _sizes(paths, blobs)
    for h in going:
        data = {"name": name, "version": h.version, "purge": str(purge).lower()}
        _noted(paths, "uninstall", data, partial(_remove, paths, h, blobs))
        sink(Line("removed", h.title))
    if not inventory.holdings(paths, name):
        services.stop_front(paths, name)
        services.forget(paths, name, None)
        fsio.remove_tree(paths.name_folder(name))
        fsio.remove_tree(paths.stored / name)
    return Removed(tuple(h.title for h in going), len(sizes), sum(sizes.values()))


def _going(paths: HostPaths, name: str, version: str | None) -> tuple[Holding, ...]:
    """What is to be removed; nothing, but no error, where a killed run left only the name."""
    left = paths.name_folder(name).exists() or (paths.stored / name).exists()
    if version is None and left and not inventory.holdings(paths, name):
        return ()
    return inventory.must_have(paths, name, version)


def gc(paths: HostPaths, judge: Judge, sink: Sink = silent, *, dry_run: bool = False) -> Removed:
    """Remove what nothing needs: of every NAME all but what is current, what runs, and one way
    back; then every blob that nothing left names. The caller holds the host's lock."""
    everything = inventory.holdings(paths)
    going = tuple(h for h in everything if not _is_kept(paths, h, judge))
    kept = inventory.used(tuple(h for h in everything if h not in going))
    blobs = {p.name for p in _blobs(paths) if p.name not in kept}
    sizes = _sizes(paths, blobs)
    done = Removed(tuple(h.title for h in going), len(sizes), sum(sizes.values()))
    if dry_run:
        return done
    Store(paths.store).discard_incoming()
    _discard_unused(paths)
    if not going and not blobs:
        return done
    data = {"deployments": str(len(going)), "blobs": str(len(blobs)), "bytes": str(done.size)}
    _noted(paths, "gc", data, partial(_remove_blobs, paths, blobs))
    for h in going:
        data = {"name": h.name, "version": h.version, "purge": "false"}
        _noted(paths, "uninstall", data, partial(_remove, paths, h, set()))
        sink(Line("removed", h.title))
    _discard_unused(paths)
    return done


def _discard_unused(paths: HostPaths, leaving: Holding | None = None) -> None:
    """Environments and images that no deployment runs from any more; `leaving` counts as none."""
    venvs.discard_unused(paths)
    gone = leaving and (leaving.name, leaving.version)  # its record may be removed already
    staying = (h for h in inventory.holdings(paths) if (h.name, h.version) != gone)
    manifests = [h.manifest for h in staying if h.manifest is not None]
    images = (a for m in manifests for a in m.artifacts if isinstance(a, Image))
    bring.discard_unused(paths, images)


def _is_kept(paths: HostPaths, h: Holding, judge: Judge) -> bool:
    if h.stored_only or inventory.is_active(paths, h.name, h.version):
        return True
    if not h.whole or h.manifest is None:
        return False
    if paths.current_version(h.name) is None:
        return True  # nothing says which of them is wanted
    return h.version in inventory.ways_back(paths, h.name, judge)[:1]


def _noted(
    paths: HostPaths, event: str, data: Mapping[str, str], remove: Callable[[], None]
) -> None:
    """The entry first, unless the disk is too full for it: then removing makes the room."""
    newest = ledger.read(paths.ledger).entries[-1:]
    again = bool(newest) and newest[0].event == event and dict(newest[0].data) == dict(data)
    noted = again or _append(paths, event, data)
    remove()
    if not noted:
        ledger.append(paths.ledger, event, data)


def _append(paths: HostPaths, event: str, data: Mapping[str, str]) -> bool:
    try:
        ledger.append(paths.ledger, event, data)
    except DiskError as e:
        if e.id != "disk.full":
            raise
        return False
    return True


def _remove(paths: HostPaths, h: Holding, blobs: set[str]) -> None:
    """`blobs` go while the manifest still says that they belonged to it, and so does what it alone
    ran from: whoever is killed before the folder is gone finishes with the same command."""
    if h.stored_only:
        _remove_blobs(paths, blobs)
        _unlink(paths.stored / h.name / f"{h.version}.json")
        return
    place = paths.deployment(h.name, h.version)
    services.forget(paths, h.name, h.version)
    if paths.current_version(h.name) == h.version:
        _unlink(paths.current_link(h.name))
    _unlink(place.record)
    for entry in sorted(place.folder.iterdir()):
        if entry != place.manifest:
            fsio.remove_tree(entry)
    _remove_blobs(paths, blobs)
    _discard_unused(paths, leaving=h)
    fsio.remove_tree(place.folder)


def _unlink(path: Path) -> None:
    with fsio.disk_errors(f"removing {path}"):
        path.unlink(missing_ok=True)
        fsio.fsync_dir(path.parent)


def _blobs(paths: HostPaths) -> list[os.DirEntry[str]]:
    folder = Store(paths.store).blobs
    if not folder.is_dir():
        return []
    with fsio.disk_errors(f"reading {folder}"):
        return [e for e in os.scandir(folder) if e.is_file(follow_symlinks=False)]


def _sizes(paths: HostPaths, blobs: set[str]) -> dict[str, int]:
    return {e.name: e.stat().st_size for e in _blobs(paths) if e.name in blobs}


def _remove_blobs(paths: HostPaths, blobs: set[str]) -> None:
    store = Store(paths.store)
    with fsio.disk_errors(f"removing blobs from {store.blobs}"):
        for sha256 in sorted(blobs):
            store.blob_path(sha256).unlink(missing_ok=True)
        if blobs:
            fsio.fsync_dir(store.blobs)
