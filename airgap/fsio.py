"""The durable write: the only way anything is written on either side.

A file has its final name only after its bytes were checked and fsynced, and the name itself is
fsynced through its folder. A failed write leaves the temporary's name behind at most, which
`sweep` removes; it never leaves a half-written final name.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from airgap.errors import DiskError, HostError, SealiftError

TEMP_PREFIX = ".tmp-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# How deep a tree is removed where it stands.
_DEEPEST = 64


def wrap_os_error(e: OSError, what: str) -> SealiftError:
    """Name the cause of an OSError at the seam where it enters."""
    why = f"{e.strerror or e} ({errno.errorcode.get(e.errno or 0, '?')})"
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        do = "free space on that file system and run the same command again: it resumes"
        return DiskError("disk.full", what, why=why, do=do)
    if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        do = "run as a user who may write there, or name another place"
        return HostError("host.permission", what, why=why, do=do)
    do = "check the medium and the kernel log, then run the same command again"
    return DiskError("disk.error", what, why=why, do=do)


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn every OSError inside into a DiskError or HostError that says `what` failed."""
    try:
        yield
    except OSError as e:
        raise wrap_os_error(e, what) from e


def temp_name(folder: Path) -> Path:
    """A name in `folder` that nobody uses; same file system, so rename is atomic."""
    return folder / f"{TEMP_PREFIX}{secrets.token_hex(8)}"


def make_dirs(folder: Path, mode: int = 0o755) -> None:
    """mkdir -p, each new entry fsynced in its parent."""
    with disk_errors(f"creating {folder}"):
        _make_dirs(folder, mode)


def _make_dirs(folder: Path, mode: int) -> None:
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_dirs(folder.parent, mode)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, mode)
    fsync_dir(folder.parent)


def fsync_dir(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class NotPlain(Exception):
    """What was to be read is no plain file; the text says what it is."""


def open_plain(path: Path) -> int:
    """A descriptor for reading a plain file: never through a link, and no FIFO or device is waited
    for. Raises NotPlain, OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as e:
        if e.errno == errno.ELOOP:
            raise NotPlain("a symbolic link") from e
        if e.errno in (errno.ENXIO, errno.ENODEV):
            raise NotPlain("a socket or a device") from e
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise NotPlain("not a regular file")
    return fd


def read_if_there(path: Path, max_bytes: int) -> bytes | None:
    """At most `max_bytes` of a file, or None when there is none."""
    with disk_errors(f"reading {path}"):
        try:
            with open(path, "rb") as f:
                return f.read(max_bytes)
        except FileNotFoundError:
            return None


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`: durable when it returns, untouched if it raises."""
    with disk_errors(f"writing {path}"):
        _make_dirs(path.parent, 0o755)
        temp = temp_name(path.parent)
        try:
            _write_new(temp, data, mode)
            os.rename(temp, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
        fsync_dir(path.parent)


def create(path: Path, data: bytes, mode: int = 0o644) -> None:
    """As `write`, but an existing file is an error (`FileExistsError`), never replaced."""
    with disk_errors(f"writing {path}"):
        _make_dirs(path.parent, 0o755)
        temp = temp_name(path.parent)
        try:
            _write_new(temp, data, mode)
            os.link(temp, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temp)
        fsync_dir(path.parent)


def _write_new(path: Path, data: bytes, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        write_all(fd, memoryview(data))
        os.fchmod(fd, mode)
        os.fsync(fd)
    finally:
        os.close(fd)


def append(path: Path, data: bytes, at: int, mode: int = 0o600) -> None:
    """Write `data` at offset `at` of `path`, dropping what lies beyond: durable when it returns.

    A power cut leaves a prefix of `data` at most; the reader must be able to tell.
    """
    with disk_errors(f"appending to {path}"):
        _make_dirs(path.parent, 0o755)
        new = not path.exists()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            os.ftruncate(fd, at)
            os.lseek(fd, at, os.SEEK_SET)
            write_all(fd, memoryview(data))
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            fsync_dir(path.parent)


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte: os.write may write fewer."""
    done = 0
    while done < len(data):
        done += os.write(fd, data[done:])


def symlink(target: str, path: Path) -> None:
    """Point the link `path` at `target`, atomically and durably: the old one or the new one."""
    with disk_errors(f"linking {path}"):
        _make_dirs(path.parent, 0o755)
        temp = temp_name(path.parent)
        os.symlink(target, temp)
        try:
            os.rename(temp, path)
        except OSError:
            os.unlink(temp)
            raise
        fsync_dir(path.parent)


def start_writing(fd: int, offset: int, size: int) -> None:
    """Let the disk begin with these bytes of a file, without waiting for it.

    Left alone, Linux writes nothing for seconds and the fsync at the end waits for all of it. Of
    posix_fadvise(2), DONTNEED is the advice that starts the writing of dirty pages; those stay in
    the page cache. Where the file system knows no advice, the fsync does the whole work.
    """
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, size, os.POSIX_FADV_DONTNEED)


def sweep(folder: Path) -> None:
    """Remove temporaries that a killed run left in `folder`. Call it under the lock."""
    if not folder.is_dir():
        return
    with disk_errors(f"cleaning {folder}"):
        for entry in os.scandir(folder):
            if entry.name.startswith(TEMP_PREFIX):
                os.unlink(entry.path)


def remove_tree(folder: Path) -> None:
    """Remove a folder and all below it: by open folders and never through a link, for what lies
    below may be another's, who swaps a folder for a link while we look."""
    if not os.path.lexists(folder):
        return
    with disk_errors(f"removing {folder}"):
        if not _unlinked(str(folder), None):
            fd = os.open(folder, _FOLDER)
            try:
                while _empty(fd, fd, 0):
                    continue  # what lay too deep lies here now
            finally:
                os.close(fd)
            os.rmdir(folder)
        fsync_dir(folder.parent)


def _unlinked(name: str, at: int | None) -> bool:
    """Remove a name that is no folder; False when it is one."""
    try:
        os.unlink(name, dir_fd=at)
    except IsADirectoryError:
        return False
    return True


def _empty(fd: int, top: int, depth: int) -> bool:
    """Remove everything in an open folder. Folders that lie too deep are moved up into `top`, which
    takes no more of the stack or of open files than that; True when there were any."""
    moved = False
    for name in os.listdir(fd):
        if _unlinked(name, fd):
            continue
        if depth == _DEEPEST:
            os.rename(name, secrets.token_hex(16), src_dir_fd=fd, dst_dir_fd=top)
            moved = True
            continue
        below = os.open(name, _FOLDER, dir_fd=fd)
        try:
            moved |= _empty(below, top, depth + 1)
        finally:
            os.close(below)
        os.rmdir(name, dir_fd=fd)
    return moved


@contextlib.contextmanager
def exclusive(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock file `path`; a second holder gets HostError `host.busy` at once.

    The lock is the kernel's (flock): it ends with the process, however that ends.
    """
    make_dirs(path.parent)
    with disk_errors(f"locking {path}"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise HostError(
                "host.busy",
                f"{doing} cannot start",
                why=f"another command holds {path}",
                do="wait until it has ended, then run this again",
            ) from e
        yield
    finally:
        os.close(fd)
