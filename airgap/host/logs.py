"""The engine's log: bounded, turned over once, quoted in errors."""

from __future__ import annotations

import os
from pathlib import Path

from airgap import fsio, limits
from airgap.host import theirs


class RotatingLog:
    """Appends bytes to `path`; past `max_bytes` the file becomes `path`.1 and a new one begins."""

    def __init__(self, path: Path, max_bytes: int = limits.MAX_LOG_BYTES) -> None:
        self._path = path
        self._max_bytes = max_bytes
        fsio.make_dirs(path.parent, 0o700)
        self._open()

    def _open(self) -> None:
        with fsio.disk_errors(f"opening {self._path}"):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(self._path, flags, 0o600)
            self._size = os.fstat(self._fd).st_size

    def write(self, data: bytes) -> None:
        """Append `data`. A log is not state: it is not fsynced."""
        with fsio.disk_errors(f"writing {self._path}"):
            if self._size + len(data) > self._max_bytes and self._size:
                os.close(self._fd)
                os.rename(self._path, self._path.with_name(self._path.name + ".1"))
                self._open()
            fsio.write_all(self._fd, memoryview(data))
            self._size += len(data)

    def close(self) -> None:
        os.close(self._fd)


def tail(
    path: Path, lines: int = limits.LOG_TAIL_LINES, max_bytes: int = limits.LOG_TAIL_BYTES
) -> str:
    """The last lines of a log as text, control characters shown harmlessly; '' when it is empty.
    Raises IntegrityError `host.not-a-file`."""
    try:
        fd = theirs.open_file(path)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, "rb") as f, fsio.disk_errors(f"reading {path}"):
        size = f.seek(0, os.SEEK_END)
        f.seek(max(0, size - max_bytes))
        data = f.read(max_bytes)
    text = data.decode("utf-8", "replace")
    shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
    return "\n".join(shown.splitlines()[-lines:])
