"""A file that is half there: its bytes, and a journal of which of them have come.

`partial/KEY.part` holds bytes at their final places; `partial/KEY.journal` is a text file to which
a line is added for each range that was written:

    H {"boot": ..., "size": ..., "validator": ...}   what the bytes are of, and when the host booted
    R 0 1048576                                      these bytes were written
    S 61                                             the lines before byte 61 are on the disk

After a kill the page cache still holds what was written, so every R line counts; after a reboot
only those that an S line covers. A torn last line is no line. Whatever the journal says, a blob
gets its name only after its digest was checked, so a wrong journal costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio, limits
from bundler.fetch.ranges import Ranges

FOLDER = "partial"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MAX_JOURNAL_BYTES = 256 * limits.MIB
_BLOB_MODE = 0o444


@dataclass(frozen=True)
class Header:
    """What partial bytes are of: `size` of the whole in bytes, and the source's `validator` (a
    strong ETag, else Last-Modified) that a later answer must have too; None when it gave none."""

    size: int | None
    validator: str | None


class Partial:
    """The two files of one key. `ranges` and `header` are what the journal said."""

    def __init__(self, folder: Path, key: str) -> None:
        self._data = folder / f"{key}.part"
        self._journal = folder / f"{key}.journal"
        self._lock = threading.Lock()
        self._unsynced = 0
        self.header: Header | None = None
        self.ranges = Ranges()
        fsio.make_dirs(folder)
        with fsio.disk_errors(f"writing {self._data}"):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self.fd = os.open(self._data, flags, 0o644)
            length = os.fstat(self.fd).st_size
        if length:
            self._load(length)
        self._log = self._open_log()

    def _load(self, length: int) -> None:
        """Believe the journal as far as it can be believed, never past the file's end."""
        try:
            text = self._journal.read_bytes()[:_MAX_JOURNAL_BYTES]
        except FileNotFoundError:
            return
        header, ranges = parse(text, _boot())
        if header is None:
            return
        self.header = header
        for start, end in ranges:
            self.ranges.add(start, min(end, length))

    def _open_log(self) -> int:
        """A fresh journal that says what was read from the old one, in a few lines."""
        lines = _head(self.header) + "".join(f"R {a} {b}\n" for a, b in self.ranges)
        fsio.write(self._journal, lines.encode("ascii"))
        with fsio.disk_errors(f"writing {self._journal}"):
            return os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def begin(self, header: Header) -> None:
        """Drop what is there: from now on the bytes are of `header`."""
        with self._lock, fsio.disk_errors(f"writing {self._data}"):
            self.header, self.ranges = header, Ranges()
            os.ftruncate(self._log, 0)
            os.write(self._log, _head(header).encode("ascii"))
            os.ftruncate(self.fd, 0)

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes at their place. They count after `note`."""
        view = memoryview(data)
        with fsio.disk_errors(f"writing {self._data}"):
            while view:
                count = os.pwrite(self.fd, view, offset)
                offset += count
                view = view[count:]

    def note(self, start: int, end: int) -> None:
        """Bytes [start, end) were written: a later run need not fetch them."""
        if start >= end:
            return
        with self._lock, fsio.disk_errors(f"writing {self._journal}"):
            self.ranges.add(start, end)
            self._unsynced += end - start
            os.write(self._log, f"R {start} {end}\n".encode("ascii"))

    def start_writing(self, start: int, end: int) -> None:
        """Let the disk begin with bytes that were written, so that the last fsync waits less."""
        fsio.start_writing(self.fd, start, end - start)

    @property
    def unsynced(self) -> int:
        """Bytes noted since the last `sync`."""
        return self._unsynced

    def sync(self) -> None:
        """Have the disk take what was noted so far, so that even a power cut leaves it."""
        with self._lock:
            length = os.lseek(self._log, 0, os.SEEK_END)
            self._unsynced = 0
        with fsio.disk_errors(f"writing {self._data}"):
            os.fdatasync(self.fd)
            with self._lock:
                if os.lseek(self._log, 0, os.SEEK_END) >= length:
                    os.write(self._log, f"S {length}\n".encode("ascii"))
            os.fdatasync(self._log)

    def finish(self, blob: Path) -> None:
        """The bytes were checked: make them durable and give them their name."""
        with fsio.disk_errors(f"writing {blob}"):
            os.fchmod(self.fd, _BLOB_MODE)
            os.fsync(self.fd)
            fsio.make_dirs(blob.parent)
            os.rename(self._data, blob)
            self._journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove both files."""
        for path in (self._journal, self._data):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def close(self) -> None:
        """Keep what is there for a later run; nothing is kept of nothing."""
        os.close(self._log)
        os.close(self.fd)
        if not self.ranges.total:
            self.discard()


def parse(text: bytes, boot: str) -> tuple[Header | None, list[tuple[int, int]]]:
    """Header and ranges of a journal. Lines that make no sense end it."""
    proven = 0
    header: Header | None = None
    same_boot = False
    ranges: list[tuple[int, int, int]] = []
    at = 0
    for line in text.split(b"\n")[:-1]:
        kind, _, rest = line.partition(b" ")
        at += len(line) + 1
        try:
            if kind == b"H":
                found = json.loads(rest)
                header = Header(found["size"], found["validator"])
                same_boot = found["boot"] == boot
            elif kind == b"R":
                start, end = (int(n) for n in rest.split(b" "))
                ranges.append((at, start, end))
            elif kind == b"S":
                proven = max(proven, int(rest))
            else:
                break
        except (ValueError, KeyError, TypeError):
            break
    return header, [(a, b) for line_end, a, b in ranges if same_boot or line_end <= proven]


def kept(folder: Path, key: str) -> int:
    """Bytes that a partial file of that key already takes on the disk."""
    try:
        return os.stat(folder / f"{key}.part").st_blocks * 512
    except FileNotFoundError:
        return 0


def _head(header: Header | None) -> str:
    if header is None:
        return ""
    fields = {"boot": _boot(), "size": header.size, "validator": header.validator}
    return f"H {json.dumps(fields)}\n"


def _boot() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return "unknown"
