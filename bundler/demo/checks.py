"""What the demo looks for before it starts: system libraries and disk space."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Mapping
from pathlib import Path

from airgap import fsio
from airgap.errors import DiskError, HostError
from bundler.demo.recipe import Recipe


def libraries(needed: Mapping[str, str]) -> None:
    """Raises HostError `demo.libraries` with the one line that installs what is missing.

    `needed`: a library's file name -> the Debian package that brings it.
    """
    missing = {name: package for name, package in needed.items() if not _loads(name)}
    if missing:
        packages = " ".join(dict.fromkeys(missing.values()))
        raise HostError(
            "demo.libraries",
            f"the engine needs system libraries that are not here: {', '.join(missing)}",
            why="the dynamic linker does not find them",
            do=f"sudo apt-get install {packages}",
        )


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def space(folder: Path, recipe: Recipe) -> None:
    """Raises DiskError `demo.space` when the demo cannot fit. What an earlier run left counts as
    free: it is cleared away or used again."""
    fsio.make_dirs(folder)
    with fsio.disk_errors(f"reading {folder}"):
        free = shutil.disk_usage(folder).free + _held(folder)
    needed = recipe.disk_bytes
    if free < needed:
        raise DiskError(
            "demo.space",
            f"the demo takes {needed / 1e9:.0f} GB, {folder} has {free / 1e9:.1f} GB free",
            why="the bundle lies there as the builder, the medium and the host have it",
            do="free space, name another place with `sealift --home DIR demo`, or play the small "
            "demo: make demo ENGINE=llama.cpp",
        )


def _held(folder: Path) -> int:
    """Bytes on disk below `folder`, hard links counted once."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        st = path.lstat()
        seen[st.st_dev, st.st_ino] = st.st_blocks * 512
    return sum(seen.values())
