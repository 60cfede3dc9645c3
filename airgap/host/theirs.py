"""Reading what a daemon left in a folder of its own.

Such folders belong to the service user, and an engine that was taken over runs as that user. A link
there could lead to any file that root may read, a FIFO would never answer: both are refused.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from airgap import fsio
from airgap.errors import IntegrityError


def open_file(path: Path) -> int:
    """A descriptor for reading a plain file. Raises FileNotFoundError, IntegrityError
    `host.not-a-file`, DiskError, HostError `host.permission`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as e:
        if e.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise _refused(path) from e
        raise fsio.wrap_os_error(e, f"reading {path}") from e
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _refused(path)
    return fd


def read(path: Path, max_bytes: int) -> bytes | None:
    """At most `max_bytes` of it, None when there is none. Raises as `open_file`."""
    try:
        fd = open_file(path)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as f, fsio.disk_errors(f"reading {path}"):
        return f.read(max_bytes)


def _refused(path: Path) -> IntegrityError:
    return IntegrityError(
        "host.not-a-file",
        f"{path} is not read",
        why="a daemon keeps a plain file there, and now it is a link or something else",
        do="find out who put it there: the daemon's account may have been taken over; remove it, "
        "then run the same command again",
    )
