"""What this host is. Reads /proc and asks the kernel; never opens a connection, loads a library
or writes."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from airgap import environment, fsio

_LIBRARY_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_ASK_SECONDS = 30


@dataclass(frozen=True)
class Space:
    """Free bytes for us on the file system that holds `folder`; `device` tells two apart."""

    folder: Path
    device: int
    free: int


def space(path: Path) -> Space:
    """Of the file system where `path` is or would be made."""
    folder = path
    while not folder.exists():
        folder = folder.parent
    with fsio.disk_errors(f"asking for the free space of {folder}"):
        found = os.statvfs(folder)
        return Space(folder, os.stat(folder).st_dev, found.f_bavail * found.f_frsize)


def machine() -> str:
    """`x86_64` or `aarch64`."""
    return platform.machine()


def glibc() -> tuple[int, int] | None:
    """Version of the C library, or None when it is not glibc."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return None
    parts = text.removeprefix("glibc ").split(".")
    if len(parts) < 2 or not (parts[0].isdigit() and parts[1].isdigit()):
        return None
    return int(parts[0]), int(parts[1])


def memory_available() -> int | None:
    """Bytes that programs can still have without swapping, or None when /proc does not say."""
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def has_library(soname: str) -> bool:
    """Whether the loader would find it: its cache, then the usual folders. Nothing is loaded."""
    return soname in _loader_cache() or any(
        (Path(folder) / soname).exists() or list(Path(folder).glob(f"*-linux-gnu/{soname}"))
        for folder in _LIBRARY_FOLDERS
    )


def _loader_cache() -> set[str]:
    ldconfig = shutil.which("ldconfig", path=environment.SYSTEM_PATH)
    if ldconfig is None:
        return set()
    return {line.split()[0] for line in ask([ldconfig, "-p"]) if "=>" in line}


def ask(argv: list[str]) -> list[str]:
    """Lines that a system tool prints; none when it fails, for then the host has not that thing."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={"PATH": environment.SYSTEM_PATH, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def default_routes() -> tuple[str, ...]:
    """Interfaces with a default route, read from /proc; none is what an isolated host shows."""
    found = []
    for table, column, zero in (
        ("/proc/net/route", 1, "00000000"),
        ("/proc/net/ipv6_route", 0, "0" * 32),
    ):
        try:
            lines = Path(table).read_text("ascii").splitlines()
        except OSError:
            continue  # no such protocol on this host
        for fields in map(str.split, lines):
            name = fields[0] if column else fields[-1]
            default = fields[column] == zero and (column or fields[1] == "00")
            if default and name != "lo" and _is_up(fields, column):
                found.append(name)
    return tuple(dict.fromkeys(found))


def _is_up(fields: list[str], column: int) -> bool:
    """RTF_UP without RTF_REJECT (linux/route.h): the kernel lists a rejecting default on lo."""
    flags = int(fields[3] if column else fields[8], 16)
    return bool(flags & 0x1) and not flags & 0x200


def port_is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen(1)
        except OSError as e:
            if e.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise fsio.wrap_os_error(e, f"asking for port {port}") from e
    return True
