"""What an operator's umask does to what others must read: nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fault.machine import Machine
from tests.vectors.pieces import NOW

INSTALL = """
import os, sys
os.umask(0o077)
from airgap.host import inspect, install
inspect.clock = install.clock = lambda: {now}
from airgap.cli import main
main()
"""


def test_service_user_and_containers_can_read_what_is_installed_under_a_strict_umask(
    tmp_path: Path,
) -> None:
    """Hardened hosts have it for root; the daemons run as another user."""
    machine = Machine(tmp_path).set_up()
    argv = [sys.executable, "-c", INSTALL.format(now=NOW), "--root", str(machine.paths.root)]
    done = subprocess.run(
        [*argv, "install", str(machine.medium)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    store = machine.paths.store
    folders = [Path(f) for f, _, _ in os.walk(store)]
    assert len(folders) > 2 and {f.stat().st_mode & 0o777 for f in folders} == {0o755}
    blobs = [p for p in (store / "blobs").rglob("*") if p.is_file()]
    assert blobs and {p.stat().st_mode & 0o777 for p in blobs} == {0o444}
