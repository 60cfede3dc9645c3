"""Locked wheels out of the store, into a folder that any tool of PEP 751 installs from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airgap import fsio
from airgap.errors import SourceError, UsageError
from airgap.format.artifacts import LockedWheels
from airgap.format.lock import Lock
from airgap.store import Store
from bundler.fetch import pylock

NAME = "pylock.toml"


def export(lock: Lock, name: str | None, store: Store, out: Path) -> Path:
    """Write `wheels/` and then `pylock.toml`, so that a lock without its wheels never lies there.

    Returns the path of the lock. Raises UsageError `wheels.which`, `wheels.not-empty`, SourceError
    `source.gone`, IntegrityError when the store no longer holds what was locked.
    """
    chosen = _pick(lock, name)
    missing = [f.path.name for f in chosen.files if not store.has(f.sha256, f.size)]
    if missing:
        raise SourceError(
            "source.gone",
            f"{len(missing)} wheels are not in the store",
            why=", ".join(missing[:10]),
            do="run `sealift fetch` with the same request",
        )
    folder = out / pylock.WHEELS_FOLDER
    _check_folder(out, folder, {f.path.name for f in chosen.files})
    fsio.make_dirs(folder)
    with fsio.disk_errors(f"writing {out}"):
        (out / NAME).unlink(missing_ok=True)
    target = Store(out / ".incoming")
    try:
        target.prepare()
        for f in chosen.files:
            target.add_file(store.blob_path(f.sha256), expect_sha256=f.sha256)
            with fsio.disk_errors(f"writing {folder / f.path.name}"):
                target.blob_path(f.sha256).replace(folder / f.path.name)
        fsio.fsync_dir(folder)
    finally:
        fsio.remove_tree(target.root)
    fsio.write(out / NAME, pylock.write(chosen, lock.target).encode("utf-8"))
    return out / NAME


def _pick(lock: Lock, name: str | None) -> LockedWheels:
    found = [a for a in lock.artifacts if isinstance(a, LockedWheels) and name in (None, a.name)]
    if len(found) != 1:
        names = [a.name for a in lock.artifacts if isinstance(a, LockedWheels)]
        raise UsageError(
            "wheels.which",
            f"{len(found)} sets of wheels are meant",
            why=f"the lock has {', '.join(names) or 'none'}",
            do="name one with --name" if names else "add a [[wheels]] table and lock again",
        )
    return found[0]


def _check_folder(out: Path, folder: Path, names: set[str]) -> None:
    """Nothing but an older export of the same names: another file there would be installed too."""
    others = _entries(out) - {NAME, folder.name, ".incoming"} | (_entries(folder) - names)
    if others:
        raise UsageError(
            "wheels.not-empty",
            f"{out} holds something else: {sorted(others)[0]}",
            why="a tool that installs from the folder would take that for a wheel of the lock",
            do="name a folder of its own",
        )


def _entries(folder: Path) -> set[str]:
    names: Sequence[str] = ()
    if folder.exists():
        with fsio.disk_errors(f"reading {folder}"):
            names = [p.name for p in folder.iterdir()]
    return {n for n in names if not n.startswith(fsio.TEMP_PREFIX)}
