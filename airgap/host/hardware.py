"""CPU, memory and disks, read from /proc and asked of the kernel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from airgap import fsio
from airgap.format.facts import CPU_FEATURES, Cpu, Disk

# Mount points that every system may have; others could tell names of people, sites or projects.
_PLAIN_MOUNTS = frozenset(
    f"/{m}".rstrip("/")
    for m in (
        *("", "data", "home", "opt", "srv", "usr", "var", "var/lib", "var/lib/airgap"),
        *("var/lib/containers", "var/lib/docker"),
    )
)
OTHER_MOUNT = "/other"
_DISK_KINDS = frozenset(
    (
        *("bcachefs", "btrfs", "ceph", "ext2", "ext3", "ext4", "f2fs", "gfs2", "lustre"),
        *("nfs", "nfs4", "overlay", "xfs", "zfs"),
    )
)
_UNFIT = re.compile(r"[^A-Za-z0-9 ().,@/+_-]+")


def cpu(top: Path = Path("/")) -> Cpu:
    """Model, cores that a process may use, and the features that engines choose code by."""
    model, flags = None, set[str]()
    for line in lines(top / "proc/cpuinfo"):
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name" and model is None:
            model = _UNFIT.sub(" ", value).strip()[:100] or None
        elif key in ("flags", "Features") and not flags:
            flags = set(value.split())
    cores = len(os.sched_getaffinity(0))
    return Cpu(model=model, cores=cores, features=tuple(f for f in CPU_FEATURES if f in flags))


def memory(top: Path = Path("/")) -> int:
    """Bytes of memory that the kernel has."""
    for line in lines(top / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def disks(root: Path, top: Path = Path("/")) -> tuple[Disk, ...]:
    """File systems that could hold a bundle; the one that holds `root` is marked."""
    mounts = dict(_mounts(top))
    holder = next((str(p) for p in (root, *root.parents) if _shown(p) in mounts), "")
    found = []
    for mount, kind in sorted(mounts.items()):
        ours = mount == _shown(Path(holder)) and bool(holder)
        if ours or (kind in _DISK_KINDS and mount in _PLAIN_MOUNTS):
            name = (mount or "/") if mount in _PLAIN_MOUNTS else OTHER_MOUNT
            found += _disk(mount or "/", name, kind, ours=ours)
    return tuple(found)


def _shown(path: Path) -> str:
    """`/` as an empty text, so that prefixes are all of one form."""
    return str(path).rstrip("/")


def _mounts(top: Path) -> Iterator[tuple[str, str]]:
    """Mount point and kind of each file system; where two lie on one point, the upper one."""
    for line in lines(top / "proc/self/mountinfo"):
        left, sign, right = line.partition(" - ")
        fields = left.split()
        if sign and len(fields) >= 5 and right:
            yield _unescaped(fields[4]).rstrip("/"), right.split()[0]


def _unescaped(text: str) -> str:
    """The kernel writes space, tab, newline and backslash as octal."""
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


def _disk(place: str, name: str, kind: str, *, ours: bool) -> list[Disk]:
    try:
        found = os.statvfs(place)
    except OSError:
        return []  # a mount that does not answer holds nothing for us
    kind = re.sub(r"[^a-z0-9._-]", "-", kind.lower())[:32]
    size, free = found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
    return [Disk(mount=name, type=kind, size=size, free=free, root=ours)]


def lines(path: Path) -> list[str]:
    """Lines of a small system file; none when this kernel or system does not have it."""
    try:
        return path.read_text("utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e
