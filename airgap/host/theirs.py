"""Reading what a daemon left in a folder of its own.

Such folders belong to the service user, and an engine that was taken over runs as that user. A link
there could lead to any file that root may read, a FIFO would never answer: both are refused.
"""

from __future__ import annotations

import os
from pathlib import Path

from airgap import fsio
from airgap.errors import IntegrityError


def open_file(path: Path) -> int:
    """A descriptor for reading a plain file. Raises FileNotFoundError, IntegrityError
    `host.not-a-file`, DiskError, HostError `host.permission`."""
    try:
        return fsio.open_plain(path)
    except FileNotFoundError:
        raise
    except fsio.NotPlain as e:
        raise _refused(path, str(e)) from e
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e


def read(path: Path, max_bytes: int) -> bytes | None:
    """At most `max_bytes` of it, None when there is none. Raises as `open_file`."""
    try:
        fd = open_file(path)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as f, fsio.disk_errors(f"reading {path}"):
        return f.read(max_bytes)


def _refused(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        "host.not-a-file",
        f"{path} is not read",
        why=f"a daemon keeps a plain file there, and now it is {what}",
        do="find out who put it there: the daemon's account may have been taken over; remove it, "
        "then run the same command again",
    )
