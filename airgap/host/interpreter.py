"""Finding the host's own Python of the version that the wheels were locked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from airgap import environment
from airgap.errors import HostError

_ASK = "import sys; print('%d.%d' % sys.version_info[:2]); print(sys.executable)"
_ASK_SECONDS = 30


def find(version: str) -> Path:
    """An interpreter of `version` ("3.12"): ours, or pythonX.Y on PATH.

    Raises HostError `host.python` (exit 7) that names what was tried.
    """
    tried = []
    for candidate in candidates(version):
        found = ask(candidate)
        if found is not None and found[0] == version:
            return found[1]
        tried.append(f"{candidate} ({found[0] if found else 'does not run'})")
    raise HostError(
        "host.python",
        f"this host has no Python {version}",
        why=f"the bundle's wheels are for {version}; tried {', '.join(tried)}",
        do=f"install python{version} (Debian: python{version} python{version}-venv), "
        f"or bring a bundle whose target.python this host has",
    )


def candidates(version: str) -> list[Path]:
    """What may be it: the interpreter that runs this, then every pythonX.Y on PATH."""
    out = [Path(sys.executable)] if sys.executable else []
    folders = os.environ.get("PATH", environment.SYSTEM_PATH).split(os.pathsep)
    for folder in [*folders, *environment.SYSTEM_PATH.split(":")]:
        path = shutil.which(f"python{version}", path=folder) if folder else None
        if path is not None and Path(path) not in out:
            out.append(Path(path))
    return out


def ask(candidate: Path) -> tuple[str, Path] | None:
    """Version and real path of an interpreter, or None when it does not run.

    A candidate that fails is one candidate less, not an error: PATH may hold wrappers that answer
    only in other places.
    """
    try:
        done = subprocess.run(
            [str(candidate), "-I", "-S", "-c", _ASK],
            capture_output=True,
            env={"PATH": environment.SYSTEM_PATH, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0 or len(lines) != 2:
        return None
    return lines[0], Path(lines[1])
