"""The content-addressed store: `blobs/sha256/<hex>`, the same layout as an OCI image layout.

A blob has its final name only after its SHA-256 was checked and its bytes were fsynced. Bytes are
read once and written once: hashed in the buffer between the read and the write. Where the file
system can share extents (FICLONE), nothing is written: our own clone is hashed instead, because the
source may still change under somebody's hand while the clone cannot.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio, limits
from airgap.errors import IntegrityError

# linux/fs.h: _IOW(0x94, 9, int)
_FICLONE = 0x40049409
_BLOB_MODE = 0o444

OnBytes = Callable[[int], None]


def _no_progress(_count: int) -> None:
    return None


@dataclass(frozen=True)
class Digests:
    """Identity and size in bytes of what was taken in."""

    sha256: str
    size: int


class Store:
    """Blobs under `root`. Safe for several threads; several processes need the caller's lock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs" / "sha256"
        # Asked for 10,000 files at a time.
        self._blobs = str(self.blobs)
        self._incoming = root / "incoming"

    def prepare(self) -> None:
        """Make the folders and drop what a killed run left. Call it under the caller's lock."""
        fsio.make_dirs(self.blobs)
        fsio.make_dirs(self._incoming)
        fsio.sweep(self._incoming)

    def blob_path(self, sha256: str) -> Path:
        """Where that blob lies or would lie."""
        return self.blobs / sha256

    def has(self, sha256: str, size: int) -> bool:
        """Whether a regular file of that name and size is there (its bytes are not read)."""
        try:
            st = os.lstat(f"{self._blobs}/{sha256}")
        except FileNotFoundError:
            return False
        return stat.S_ISREG(st.st_mode) and st.st_size == size

    def add_bytes(self, data: bytes) -> Digests:
        """Take in bytes that are in memory already."""
        with self.incoming() as writer:
            writer.write(data)
            return writer.commit()

    def add_file(
        self,
        source: Path,
        *,
        expect_sha256: str | None = None,
        expect_size: int | None = None,
        on_bytes: OnBytes = _no_progress,
        durable_name: bool = True,
    ) -> Digests:
        """Take in a regular file: one read, one write (or a clone and one read).

        `durable_name=False` leaves the folder's fsync to a later `sync_names`, for many files.
        Raises IntegrityError when it is no regular file or not what was expected, DiskError on I/O.
        """
        with open_regular(source) as fd, self.incoming() as writer:
            size = os.fstat(fd).st_size
            if expect_size is not None and size != expect_size:
                raise wrong_size(source.name, size, expect_size)
            writer.take(fd, size, on_bytes)
            return writer.commit(expect_sha256, expect_size, durable_name=durable_name)

    def adopt(self, source: Path, sha256: str, size: int, on_bytes: OnBytes = _no_progress) -> None:
        """Hard-link a file of the same file system into the store, after reading it once.

        Only for media the caller vouches for (`--adopt`): whoever can write the other name can
        still change these bytes.
        """
        fsio.make_dirs(self.blobs)
        fsio.make_dirs(self._incoming)
        temp = fsio.temp_name(self._incoming)
        with open_regular(source) as fd:
            digest = _hash_fd(fd, on_bytes, source.name, size)[0].hexdigest()
            found = os.fstat(fd)
            if found.st_size != size:
                raise wrong_size(source.name, found.st_size, size)
            if digest != sha256:
                raise wrong_digest(source.name, digest, sha256)
            with fsio.disk_errors(f"linking {source} into the store"):
                try:
                    os.link(source, temp, follow_symlinks=False)
                    if not os.path.samestat(os.lstat(temp), found):
                        raise _not_regular(source, "another file than the one that was read")
                    os.fsync(fd)
                    os.rename(temp, self.blob_path(sha256))
                    fsio.fsync_dir(self.blobs)
                finally:
                    # rename() of two names of one file does nothing and leaves both (POSIX).
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temp)

    def discard_incoming(self) -> None:
        """Remove the folder of unfinished blobs (a bundle may not hold it)."""
        fsio.remove_tree(self._incoming)

    def sync_names(self) -> None:
        """Make the names of all blobs durable."""
        with fsio.disk_errors(f"writing {self.blobs}"):
            fsio.fsync_dir(self.blobs)

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A writer for one blob; without a commit nothing remains of it."""
        fsio.make_dirs(self.blobs)
        fsio.make_dirs(self._incoming)
        writer = Incoming(self, fsio.temp_name(self._incoming))
        try:
            yield writer
        finally:
            writer.close()


class Incoming:
    """One blob on its way into the store."""

    def __init__(self, store: Store, temp: Path) -> None:
        self._store = store
        self._temp = temp
        self._hash = hashlib.sha256()
        self._size = 0
        self._on_its_way = 0
        with fsio.disk_errors(f"writing {store.root}"):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(temp, flags, _BLOB_MODE)

    def write(self, data: bytes | memoryview) -> None:
        """Append and hash."""
        self._hash.update(data)
        self._size += len(data)
        with fsio.disk_errors(f"writing {self._store.root}"):
            fsio.write_all(self._fd, memoryview(data))
            if self._size - self._on_its_way >= limits.WRITEBACK_BYTES:
                fsio.start_writing(self._fd, self._on_its_way, self._size - self._on_its_way)
                self._on_its_way = self._size

    def take(self, fd: int, size: int, on_bytes: OnBytes = _no_progress) -> None:
        """Append all `size` bytes of the open file `fd`, cloned where the file system can."""
        if self._size == 0 and size > 0 and _clone(fd, self._fd):
            self._hash, self._size = _hash_fd(self._fd, on_bytes, "the clone")
            return
        for chunk in read_chunks(fd):
            if self._size + len(chunk) > size:
                raise wrong_size("the file", self._size + len(chunk), size)
            self.write(chunk)
            on_bytes(len(chunk))

    def commit(
        self,
        expect_sha256: str | None = None,
        expect_size: int | None = None,
        *,
        durable_name: bool = True,
    ) -> Digests:
        """Check, fsync, and give the blob its name. Raises IntegrityError on a mismatch."""
        sha256 = self._hash.hexdigest()
        if expect_size is not None and self._size != expect_size:
            raise wrong_size(expect_sha256 or "the blob", self._size, expect_size)
        if expect_sha256 is not None and sha256 != expect_sha256:
            raise wrong_digest("the blob", sha256, expect_sha256)
        with fsio.disk_errors(f"writing {self._store.root}"):
            os.fsync(self._fd)
            os.rename(self._temp, self._store.blob_path(sha256))
            if durable_name:
                fsio.fsync_dir(self._store.blobs)
        return Digests(sha256, self._size)

    def close(self) -> None:
        """Drop what was not committed. What a failing disk keeps of it, `prepare` drops later."""
        os.close(self._fd)
        with contextlib.suppress(OSError):
            os.unlink(self._temp)


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[int]:
    """Open for reading, never through a link and never a FIFO or device (IntegrityError)."""
    try:
        fd = fsio.open_plain(path)
    except fsio.NotPlain as e:
        raise _not_regular(path, str(e)) from e
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e
    try:
        yield fd
    finally:
        os.close(fd)


def hash_file(
    path: Path, on_bytes: OnBytes = _no_progress, expect_size: int | None = None
) -> Digests:
    """SHA-256 and size of a regular file, read once.

    With `expect_size`, a file that is not of that size is refused (IntegrityError), and one that
    grows under the reader's hand is not followed without end.
    """
    with open_regular(path) as fd:
        size = os.fstat(fd).st_size
        if expect_size is not None and size != expect_size:
            raise wrong_size(path.name, size, expect_size)
        digest, done = _hash_fd(fd, on_bytes, path.name, expect_size)
        return Digests(digest.hexdigest(), done)


def read_chunks(fd: int) -> Iterator[memoryview]:
    """The file's bytes in one buffer used again and again: do not keep a chunk."""
    with fsio.disk_errors("reading"):
        size = os.fstat(fd).st_size
        # Most files of an environment are small, and clearing a buffer takes longer than they do.
        buffer = bytearray(min(limits.COPY_CHUNK_BYTES, size + 1))
        if size > len(buffer):
            with contextlib.suppress(AttributeError):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    view = memoryview(buffer)
    while True:
        with fsio.disk_errors("reading the medium"):
            count = os.readv(fd, [view])
        if count == 0:
            return
        yield view[:count]


def _hash_fd(
    fd: int, on_bytes: OnBytes, name: str, expect_size: int | None = None
) -> tuple[hashlib._Hash, int]:
    """Hash from the beginning; the second value is how many bytes there were."""
    digest, size = hashlib.sha256(), 0
    with fsio.disk_errors("reading"):
        os.lseek(fd, 0, os.SEEK_SET)
    for chunk in read_chunks(fd):
        size += len(chunk)
        if expect_size is not None and size > expect_size:
            raise wrong_size(name, size, expect_size)
        digest.update(chunk)
        on_bytes(len(chunk))
    return digest, size


def _clone(source: int, target: int) -> bool:
    """Share the source's extents with the empty target; False where that is impossible."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL, errno.EPERM):
            return False
        raise fsio.wrap_os_error(e, "cloning into the store") from e
    return True


def _not_regular(path: Path, what: str) -> IntegrityError:
    return IntegrityError(
        "integrity.not-a-file",
        f"{path.name} was refused",
        why=f"it is {what}; only plain files are read",
        do="make the medium again from the bundle",
    )


def wrong_size(name: str, size: int, expected: int) -> IntegrityError:
    """The error for a file that is longer or shorter than it must be."""
    return IntegrityError(
        "integrity.size",
        f"{name} has {size} bytes, it must have {expected}",
        why="it was cut off, grew, or is another file",
        do="copy it from its source again",
    )


def wrong_digest(name: str, sha256: str, expected: str) -> IntegrityError:
    """The error for a file whose bytes are not the approved ones."""
    return IntegrityError(
        "integrity.digest",
        f"{name} is damaged or was changed",
        why=f"its SHA-256 is {sha256}, it must be {expected}",
        do="copy it from its source again; if it fails again, the source is damaged",
    )
