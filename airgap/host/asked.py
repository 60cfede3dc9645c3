"""A program that is told something, says something and ends: in bounds of time and bytes, whatever
it is."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airgap import fsio, limits

_MOST_BYTES = limits.MIB


@dataclass(frozen=True)
class Said:
    """What came of it; `code` is negative when a signal ended it, at a bound ours."""

    code: int
    out: str
    err: str


def ask(
    argv: Sequence[str], env: Mapping[str, str], text: str, seconds: float, **more: Any
) -> Said:
    """Run `argv` with `text`, of some KiB, on its stdin. It is killed, with its group, after
    `seconds` or when it says too much. `more`: further words of subprocess.Popen."""
    more |= dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with (
        fsio.disk_errors(f"starting {argv[0]}"),
        subprocess.Popen(argv, env=dict(env), start_new_session=True, **more) as process,
    ):
        deadline = time.monotonic() + seconds
        try:
            out, err, whole = _listen(process, text.encode(), deadline)
            if whole:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return Said(process.returncode, out, err)


def _listen(
    process: subprocess.Popen[bytes], told: bytes, deadline: float
) -> tuple[str, str, bool]:
    """Both outputs until their end, the deadline, or too many bytes, and whether it was their end:
    a child of its own that keeps them open is not waited for."""
    assert process.stdin and process.stdout and process.stderr  # noqa: S101 - pipes, see above
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(told)
    said = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    with selectors.DefaultSelector() as waits:
        for fd in said:
            waits.register(fd, selectors.EVENT_READ)
        while waits.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in waits.select(left):
                data = os.read(key.fd, 65536)
                said[key.fd] += data
                if not data:
                    waits.unregister(key.fd)
            if sum(map(len, said.values())) > _MOST_BYTES:
                break
        whole = not waits.get_map()
    out, err = (bytes(b).decode("utf-8", "replace") for b in said.values())
    return out, err, whole
