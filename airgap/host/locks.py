"""A daemon is alive exactly as long as it holds its lock, and the lock says who holds it.

POSIX record locks, because the kernel answers who holds one (F_GETLK) without taking it: no pid
file that outlives its process, no probe that a starting daemon could trip over. The kernel drops
the lock with the process, however that ends, and a child does not inherit it.
A process must not open the lock file it holds a second time: closing any descriptor drops the lock.
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from airgap import fsio
from airgap.errors import HostError, IntegrityError
from airgap.host import theirs

# Who may read it may ask who holds it, or stand in the way: the service user's group, nobody else.
_MODE = 0o640
# struct flock of Linux on 64 bits: l_type, l_whence, l_start, l_len, l_pid.
_FLOCK = "hhqqi4x"


def hold(path: Path, what: str) -> None:
    """Take the lock until this process ends: its descriptor is left open on purpose.

    Raises HostError `host.already-running` when another process holds it.
    """
    fsio.make_dirs(path.parent, 0o700)
    with fsio.disk_errors(f"locking {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        try:
            os.fchmod(fd, _MODE)  # whatever our umask is
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as e:
            os.close(fd)
            raise HostError(
                "host.already-running",
                f"{what} cannot start",
                why=f"another process holds {path}",
                do="nothing is needed if that one is fine; otherwise stop it first",
            ) from e


def holder(path: Path) -> int | None:
    """Process id of the daemon that holds the lock at `path`, or None when nobody does.

    Raises IntegrityError `host.lock-foreign` when it is none of ours: of a lock of another kind the
    kernel says -1 (fcntl(2), open file description locks), of another pid namespace 0, and a signal
    to either reaches whole groups, or everything.
    """
    try:
        # To ask needs no right to write: a relay sees the engines' folders read-only.
        fd = theirs.open_file(path)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    finally:
        os.close(fd)
    if kind == fcntl.F_UNLCK:
        return None
    if pid <= 1:
        raise IntegrityError(
            "host.lock-foreign",
            f"{path} is locked by something that is no daemon of ours",
            why=f"the kernel names {pid} as the process that holds it",
            do="find it (`lslocks`, `fuser` on that file), for the daemon's account may have been "
            "taken over; end it, then run the same command again",
        )
    return int(pid)
