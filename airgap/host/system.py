"""The operating system: what it is, what it runs, what it listens on. Read from files; programs are
only asked for their version, and nothing is ever connected to."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from airgap import environment
from airgap.format.facts import RUNTIMES, Runtime
from airgap.host import probe
from airgap.host.hardware import lines

# Libraries that engines and their wheels load and no wheel brings.
LIBRARIES = ("libcuda.so.1", "libgomp.so.1", "libnuma.so.1", "libnvidia-ml.so.1", "libstdc++.so.6")
_LISTENS = "0A"  # TCP_LISTEN (include/net/tcp_states.h)
_MAX_CDI_BYTES = 1024 * 1024
# Files that a running system keeps changing: none of them is from the future.
_DATED = ("etc", "var/log", "var/lib/dpkg/status", "var/lib/rpm", "usr/bin")


def system(top: Path = Path("/")) -> str | None:
    """Identity and version of the distribution: `debian 12`."""
    values = {}
    for line in lines(top / "etc/os-release"):
        key, _, value = line.partition("=")
        values[key] = value.strip().strip("\"'")
    name, version = values.get("ID", ""), values.get("VERSION_ID", "")
    text = f"{name} {version}".strip()
    fits = re.fullmatch(r"[a-z0-9._-]{1,40}( [A-Za-z0-9._-]{1,20})?", text, re.ASCII)
    return text if fits else None


def kernel() -> str:
    """Its numbers alone: what a site appends to them is its own."""
    found = re.match(r"[0-9]{1,5}(\.[0-9]{1,5}){0,2}", os.uname().release)
    return found.group() if found else "0"


def init(top: Path = Path("/")) -> str:
    """`systemd` where it runs (sd_booted(3)), else `other`."""
    return "systemd" if (top / "run/systemd/system").is_dir() else "other"


def cgroups(top: Path = Path("/")) -> str:
    """Which of the two interfaces is mounted."""
    folder = top / "sys/fs/cgroup"
    if (folder / "cgroup.controllers").exists():
        return "v2"
    if (folder / "unified/cgroup.controllers").exists():
        return "hybrid"
    return "v1" if (folder / "memory").is_dir() else "none"


def selinux(top: Path = Path("/")) -> str:
    """What the kernel says, else whether it is installed and off."""
    state = lines(top / "sys/fs/selinux/enforce")
    if state:
        return "enforcing" if state[0].strip() == "1" else "permissive"
    return "disabled" if (top / "etc/selinux/config").exists() else "absent"


def apparmor(top: Path = Path("/")) -> bool:
    """Whether the kernel confines by AppArmor."""
    return lines(top / "sys/module/apparmor/parameters/enabled") == ["Y"]


def runtimes() -> tuple[Runtime, ...]:
    """Programs that run containers, each with its version."""
    found = []
    for name in RUNTIMES:
        program = shutil.which(name, path=environment.SYSTEM_PATH)
        said = " ".join(probe.ask([program, "--version"])[:1]) if program else ""
        version = re.search(r"[0-9]{1,5}\.[0-9]{1,5}(\.[0-9]{1,5})?", said)
        if version:
            found.append(Runtime(name=name, version=version.group()))
    return tuple(found)


def has_cdi(top: Path = Path("/")) -> bool:
    """Whether containers can be given GPUs by the Container Device Interface."""
    for folder in ("etc/cdi", "var/run/cdi", "run/cdi"):
        for path in sorted((top / folder).glob("*")):
            small = path.suffix in (".json", ".yaml") and path.stat().st_size <= _MAX_CDI_BYTES
            if small and any("nvidia.com/gpu" in line for line in lines(path)):
                return True
    return False


def libraries() -> tuple[str, ...]:
    """Those of LIBRARIES that the loader would find."""
    return tuple(name for name in LIBRARIES if probe.has_library(name))


def listening(top: Path = Path("/")) -> tuple[int, ...]:
    """TCP ports that a program of this host has taken."""
    ports = set()
    for table in ("proc/net/tcp", "proc/net/tcp6"):
        for fields in map(str.split, lines(top / table)):
            if len(fields) > 3 and fields[3] == _LISTENS:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return tuple(sorted(ports))


def has_resolver(top: Path = Path("/")) -> bool:
    """Whether names would be asked of somebody. systemd's own stub counts for whom it asks."""
    servers = _nameservers(top / "etc/resolv.conf")
    if servers and all(s.startswith("127.0.0.5") for s in servers):
        servers = _nameservers(top / "run/systemd/resolve/resolv.conf")
    return bool(servers)


def _nameservers(path: Path) -> list[str]:
    found = (line.split() for line in lines(path))
    return [f[1] for f in found if len(f) > 1 and f[0] == "nameserver"]


def newest_file(top: Path = Path("/")) -> int:
    """The newest change of files that only a running system changes, UTC seconds; 0 for none."""
    times = [0]
    for name in _DATED:
        try:
            times.append(int((top / name).stat().st_mtime))
        except OSError:
            continue  # another kind of system
    return max(times)
