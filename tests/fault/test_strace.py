"""The same by the kernel's own hand: the real command line under strace, which kills it or fails a
system call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.fault.machine import Machine
from tests.vectors.pieces import NOW

TOOLS = [shutil.which("strace"), shutil.which("faketime")]
pytestmark = pytest.mark.skipif(
    None in TOOLS, reason="needs strace and faketime (apt-get install strace faketime)"
)


def airgap(machine: Machine, inject: str) -> subprocess.CompletedProcess[str]:
    """`airgap install` at the vectors' time, with one system call injected."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(NOW))
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={inject}"]
    fake = ["faketime", "-f", when]
    command = [sys.executable, "-I", "-m", "airgap", "--root", str(machine.paths.root), "--json"]
    return subprocess.run(
        [*fake, *strace, *command, "install", str(machine.medium)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "TZ": "UTC", "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine")).set_up()


@pytest.mark.parametrize(
    "inject", ["fsync:signal=KILL:when=2", "fsync:signal=KILL:when=9", "rename:signal=KILL:when=2"]
)
def test_killed_by_the_kernel(machine: Machine, inject: str) -> None:
    done = airgap(machine.again(), inject)
    assert done.returncode != 0, done.stderr
    machine.check_sound()
    machine.check_finished()


@pytest.mark.parametrize(
    ("inject", "error"),
    [
        ("fsync:error=EIO:when=3+", "disk.error"),
        ("rename:error=ENOSPC:when=2+", "disk.full"),
        ("readv:error=EIO:when=2+", "disk.error"),
    ],
)
def test_failed_by_the_kernel(machine: Machine, inject: str, error: str) -> None:
    """A bad sector of the medium is `readv` with EIO."""
    done = airgap(machine.again(), inject)
    assert done.returncode == 8, done.stderr
    assert json.loads(done.stderr.strip().splitlines()[-1])["id"] == error
    machine.check_sound()
    machine.check_finished()
