"""A host that can be stopped at any system call: an install in a forked child, in which the calls
that change a disk are counted, and the n-th one kills, fails, or is the last one before the power
goes.

The bundle is the good one of the vectors, without a serving plan: everything up to the receipt is
run, and no engine. test_switch_cut.py stops what follows, and `tests/e2e` installs that serve.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgap.errors import SealiftError
from airgap.host import inspect, install, ledger
from airgap.host.paths import HostPaths
from airgap.trust import state as trust_state
from airgap.trust.state import Remembered
from tests.vectors.model import Host, Vector
from tests.vectors.pieces import NOW

# What changes a disk. `open` counts only where it can create.
CALLS = (
    *("open", "write", "fsync", "rename", "link", "symlink", "unlink", "mkdir"),
    *("ftruncate", "fchmod"),
)
KILLED, CRASHED = 137, 99
GOOD = Vector("good", "none")


def remembered(host: Host) -> Remembered:
    """As the host's file has it."""
    return Remembered("fault", host.root, host.targets, host.clock_floor, host.accept_solo)


BEFORE, AFTER = remembered(GOOD.host), remembered(GOOD.learned())


@dataclass(frozen=True)
class Machine:
    """A host's root and a medium below one folder."""

    folder: Path

    @property
    def paths(self) -> HostPaths:
        return HostPaths(self.folder / "host")

    @property
    def medium(self) -> Path:
        return self.folder / "medium"

    def set_up(self) -> Machine:
        """Trust was added, nothing else."""
        trust_state.save(self.paths.trust, BEFORE)
        for path, data in GOOD.files().items():
            assert isinstance(data, bytes)
            (self.medium / path).parent.mkdir(parents=True, exist_ok=True)
            (self.medium / path).write_bytes(data)
        return self

    def again(self) -> Machine:
        """A fresh host beside the same medium."""
        shutil.rmtree(self.paths.root)
        trust_state.save(self.paths.trust, BEFORE)
        return self

    def install(self, prepare: Callable[[], None] = lambda: None) -> int:
        """Install in a child; its exit code: 0, a SealiftError's, 137 when it was killed, 99 for
        anything that should not be."""
        child = os.fork()
        if child == 0:
            os._exit(self._in_child(prepare))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def _in_child(self, prepare: Callable[[], None]) -> int:
        clock: Any = lambda: NOW  # noqa: E731
        inspect.clock = install.clock = clock
        try:
            prepare()
            install.install(self.paths, self.medium)
        except SealiftError as e:
            return e.exit_code
        except BaseException:  # noqa: BLE001 - a child of a fork must not go on as pytest
            traceback.print_exc(file=sys.stderr)
            return CRASHED
        return 0

    # --- what must hold at any time

    def check_sound(self) -> None:
        """Old state or new state, whole; every blob under its name is that blob."""
        assert trust_state.load(self.paths.trust) in (BEFORE, AFTER)
        ledger.read(self.paths.ledger)
        for blob in self.blobs():
            assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
        assert sorted(p.name for p in self.folder.iterdir()) == ["host", "medium"]

    def blobs(self) -> list[Path]:
        folder = self.paths.store / "blobs" / "sha256"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def check_finished(self) -> None:
        """The same command again, and nothing of the first one is left over."""
        assert self.install() == 0
        assert trust_state.load(self.paths.trust) == AFTER
        wanted = {b.sha256 for b in _manifest_blobs()}
        assert {b.name for b in self.blobs()} == wanted
        self.check_sound()
        left = [p for p in self.paths.root.rglob("*") if p.name.startswith(".tmp-")]
        assert left == []

    def names(self) -> list[str]:
        """Every file below the root."""
        return sorted(str(p.relative_to(self.paths.root)) for p in self.paths.root.rglob("*"))


def _manifest_blobs() -> Iterator[Any]:
    from airgap.format.manifest import Manifest

    yield from Manifest.from_bytes(GOOD.medium.manifest).blobs()


def at_call(number: int, act: Callable[[], None], report: int | None = None) -> None:
    """Patch this process: `act` runs in place of the `number`-th changing call, while every other
    thread that would change something waits. With `report`, a file descriptor gets a byte for each
    call, so that they can be counted."""
    count = iter(range(10_000))
    one_at_a_time = threading.RLock()

    def patched(name: str, real: Callable[..., Any], write: Callable[..., int]) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            with one_at_a_time:
                if report is not None:
                    write(report, b".")
                if next(count) == number:
                    act()
                return real(*args, **kwargs)

        return call

    write = os.write
    for name in CALLS:
        setattr(os, name, patched(name, getattr(os, name), write))


def count_calls(machine: Machine) -> int:
    """How many changing calls an undisturbed install makes."""
    read, write = os.pipe()
    assert machine.install(lambda: at_call(-1, lambda: None, write)) == 0
    os.close(write)
    with os.fdopen(read, "rb") as f:
        return len(f.read())


def die() -> None:
    """As `kill -9`: nothing runs after this, no `finally`, no exit handler."""
    os._exit(KILLED)
