"""Killed, out of space, or failed by the disk at every call that changes it: the old state or the
new one, and the same command again finishes."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fault.machine import KILLED, Machine, at_call, count_calls, die


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("machine")).set_up()


@pytest.fixture(scope="module")
def total(machine: Machine) -> int:
    found = count_calls(machine.again())
    assert 40 < found < 400
    return found


def test_undisturbed_install_is_the_positive_control(machine: Machine) -> None:
    machine.again().check_finished()
    assert machine.install() == 0


def test_killed_at_every_changing_call(machine: Machine, total: int) -> None:
    for number in range(total):
        machine.again()
        code = machine.install(lambda n=number: at_call(n, die))  # type: ignore[misc]
        assert code == KILLED, f"call {number}"
        machine.check_sound()
        machine.check_finished()


def fail(code: int) -> Callable[[], None]:
    def act() -> None:
        raise OSError(code, os.strerror(code))

    return act


@pytest.mark.parametrize(("code", "first"), [(errno.ENOSPC, 0), (errno.EIO, 1)])
def test_disk_fails_at_every_changing_call(
    machine: Machine, total: int, code: int, first: int
) -> None:
    """Exit code 8, or the call was one that may fail (a removal of what is not needed)."""
    seen = []
    for number in range(first, total, 3):
        machine.again()
        seen.append(machine.install(lambda n=number: at_call(n, fail(code))))  # type: ignore[misc]
        assert seen[-1] in (0, 8), f"call {number}"
        machine.check_sound()
        machine.check_finished()
    assert seen.count(8) > len(seen) * 3 // 4


@pytest.mark.parametrize("size", [0, 1, 500, 1000, 4000])
def test_file_size_limit_of_the_kernel_is_a_full_disk(machine: Machine, size: int) -> None:
    """EFBIG from the kernel itself, as on FAT32 at 4 GiB."""
    machine.again()
    limit = (size, resource.RLIM_INFINITY)
    code = machine.install(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert code == 8
    machine.check_sound()
    machine.check_finished()


def test_two_processes_at_once_the_second_is_told_to_wait(machine: Machine, tmp_path: Path) -> None:
    machine.again()
    with machine.paths.exclusive("a test"):
        before = machine.names()
        assert machine.install() == 7
        assert machine.names() == before
    machine.check_finished()
    assert not list(tmp_path.iterdir())
