"""Runs one whole process and reads what the kernel counted for it and its children."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """One run. `seconds` from start to exit. From /proc/PID/io, in bytes: `read` and `written` are
    rchar and wchar, what read and write calls moved, from the cache or not; `fetched` and `stored`
    are read_bytes and write_bytes, what the disk had to deliver and will have to take."""

    seconds: float
    read: int
    written: int
    fetched: int
    stored: int


def run(argv: Sequence[str], env: Mapping[str, str] | None = None) -> Cost:
    """Run to the end. Raises AssertionError with the program's own words when it fails."""
    started = time.monotonic()
    with subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        said = child.stdout.read()
        # Wait without reaping: a zombie's counters can still be read, with its children's in it.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        seconds = time.monotonic() - started
        io = _counters(child.pid)
    assert child.returncode == 0, f"{argv} ended with {child.returncode}:\n{said}"
    return Cost(seconds, io["rchar"], io["wchar"], io["read_bytes"], io["write_bytes"])


def _counters(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}
