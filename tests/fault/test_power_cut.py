"""The power goes: what was not fsynced is gone.

A model of a disk (tests/fault/disk.py) watches an install in a child process. After the n-th
changing call the disk is written out as the power cut would leave it: once with every name that was
not synced lost, once with all names kept and the bytes that were not synced replaced by nothing,
which is what a file system that journals only names does.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fault.disk import boot, cut, watch
from tests.fault.machine import KILLED, Machine, at_call, count_calls


@pytest.mark.parametrize("names_survive", [False, True])
def test_power_cut_after_every_changing_call(
    tmp_path_factory: pytest.TempPathFactory, names_survive: bool
) -> None:
    machine = Machine(tmp_path_factory.mktemp("machine")).set_up()
    total = count_calls(machine)
    image = tmp_path_factory.mktemp("image") / "disk"
    for number in range(int(names_survive), total, 2):
        machine.again()

        def prepare(n: int = number) -> None:
            watch(machine.paths.root)
            at_call(n, lambda: cut(machine.paths.root, image, names_survive=names_survive))

        assert machine.install(prepare) == KILLED
        boot(machine.paths.root, image)
        machine.check_sound()
        machine.check_finished()


def test_a_write_without_fsync_would_be_seen(tmp_path: Path) -> None:
    """Positive control: without fsync the same cut leaves a host that refuses."""
    from airgap import fsio
    from airgap.errors import SealiftError

    machine = Machine(tmp_path).set_up()
    image = tmp_path.parent / f"{tmp_path.name}-disk"
    child = os.fork()
    if child == 0:
        watch(machine.paths.root)
        os.fsync = lambda _fd: None
        fsio.write(machine.paths.trust, machine.paths.trust.read_bytes() + b" ")
        cut(machine.paths.root, image, names_survive=True)
    os.waitpid(child, 0)
    boot(machine.paths.root, image)
    with pytest.raises(SealiftError) as e:
        from airgap.trust import state as trust_state

        trust_state.load(machine.paths.trust)
    assert e.value.id == "trust.state-damaged"
