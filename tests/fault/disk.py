"""A model of a disk: what was not fsynced is gone when the power goes, names and bytes each for
themselves.

A file's bytes are on disk when it was fsynced; a name is, when its folder was; a link is its name.
`watch` and `cut` run in the child that is to lose its power, `boot` afterwards in the parent.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from tests.fault.machine import KILLED

CONTENTS: dict[int, bytes] = {}  # inode -> bytes as of its last fsync
ENTRIES: dict[str, dict[str, int]] = {}  # folder -> names as of its last fsync
LINKS: dict[int, str] = {}  # inode -> where it leads


@dataclass(frozen=True)
class Link:
    """A symbolic link in the image of a disk."""

    target: str


Item = bytes | Link | None


def watch(root: Path) -> None:
    """From here on, remember what every fsync made durable. What lay there before is on disk."""
    CONTENTS.clear()
    ENTRIES.clear()
    LINKS.clear()
    for folder, _, files in os.walk(root):
        _note_names(folder)
        for path in (Path(folder, name) for name in files):
            if not path.is_symlink():
                CONTENTS[os.lstat(path).st_ino] = path.read_bytes()
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        st = os.fstat(fd)
        if stat.S_ISDIR(st.st_mode):
            _note_names(os.readlink(f"/proc/self/fd/{fd}"))
        else:
            with open(f"/proc/self/fd/{fd}", "rb") as f:
                CONTENTS[st.st_ino] = f.read()

    os.fsync = fsync  # type: ignore[assignment]


def _note_names(folder: str) -> None:
    entries = list(os.scandir(folder))
    ENTRIES[folder] = {e.name: e.inode() for e in entries}
    LINKS.update({e.inode(): os.readlink(e.path) for e in entries if e.is_symlink()})


def cut(root: Path, image: Path, *, names_survive: bool) -> None:
    """Write the disk's state into `image` and die: every name that was not synced is lost, or all
    are kept, with nothing in place of the bytes that were not synced."""
    tree: list[tuple[str, Item]] = []

    def folder(path: str) -> None:
        now = {e.name: e.inode() for e in os.scandir(path)}
        for name, inode in (now if names_survive else ENTRIES.get(path, {})).items():
            child, where = f"{path}/{name}", _find(root, inode)
            if where is not None and os.path.islink(where):
                tree.append((child, Link(os.readlink(where))))
            elif where is not None and os.path.isdir(where):
                tree.append((child, None))
                folder(where)
            elif where is None and inode in LINKS:
                tree.append((child, Link(LINKS[inode])))
            else:  # one that was removed, where the removal was not synced, is as synced
                tree.append((child, CONTENTS.get(inode, b"")))

    folder(str(root))
    image.write_bytes(pickle.dumps(tree))
    os._exit(KILLED)


def _find(root: Path, inode: int) -> str | None:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if os.lstat(f"{folder}/{name}").st_ino == inode:
                return f"{folder}/{name}"
    return None


def boot(root: Path, image: Path) -> None:
    """The host after the power is back."""
    shutil.rmtree(root)
    root.mkdir()
    tree: list[tuple[str, Item]] = pickle.loads(image.read_bytes())
    for path, item in tree:
        place = Path(path)
        if item is None:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(item, Link):
            place.symlink_to(item.target)
        else:
            place.write_bytes(item)
