"""What the service user may own, and what it must not get."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

import pytest

from airgap.host import launch

_AT_FDCWD, _EXCHANGE = -100, 2
_TRIES = 400
NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def test_all_below_is_given(tmp_path: Path) -> None:
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "file").touch()
    launch._chown(tmp_path / "run", NOBODY, NOBODY)
    assert {p.stat().st_uid for p in tmp_path.rglob("*")} == {NOBODY}


def test_a_folder_that_turns_into_a_link_gives_nothing_away(tmp_path: Path) -> None:
    """The service user's process swaps a folder of its own for a link, while root walks."""
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    (outside / "secret").touch(0o600)
    (run / "folder" / "below").mkdir(parents=True)
    (run / "link").symlink_to(outside)
    attacker = swapping(run / "folder", run / "link")
    seen = set()
    try:
        for _ in range(_TRIES):
            seen.add((run / "folder").is_symlink())
            launch._chown(run, NOBODY, NOBODY)
            assert (outside / "secret").stat().st_uid == 0
            assert outside.stat().st_uid == 0
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)
    assert seen == {True, False}


def swapping(one: Path, other: Path) -> int:
    """A process that exchanges the two until it is killed."""
    exchange = ctypes.CDLL(None).renameat2
    names = os.fsencode(one), os.fsencode(other)
    child = os.fork()
    while child == 0:
        exchange(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE)
    return child
