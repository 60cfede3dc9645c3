"""The power goes: what was not fsynced is gone, names and bytes each for themselves.

A model of a disk watches an install in a child process. A file's bytes are on disk when it was
fsynced; a name is, when its folder was. After the n-th changing call the disk is written out as the
power cut would leave it: once with every name that was not synced lost, once with all names kept
and the bytes that were not synced replaced by nothing, which is what a file system that journals
only names does.
"""

from __future__ import annotations

import os
import pickle
import shutil
import stat
from pathlib import Path

import pytest

from tests.fault.machine import KILLED, Machine, at_call, count_calls

CONTENTS: dict[int, bytes] = {}  # inode -> bytes as of its last fsync
ENTRIES: dict[str, dict[str, int]] = {}  # folder -> names as of its last fsync


def watch(machine: Machine) -> None:
    """From here on, remember what every fsync made durable. What lay there before is on disk."""
    CONTENTS.clear()
    ENTRIES.clear()
    for folder, folders, files in os.walk(machine.paths.root):
        ENTRIES[folder] = {n: os.lstat(Path(folder, n)).st_ino for n in (*folders, *files)}
        for name in files:
            path = Path(folder, name)
            CONTENTS[os.lstat(path).st_ino] = path.read_bytes()
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        st = os.fstat(fd)
        if stat.S_ISDIR(st.st_mode):
            ENTRIES[path] = {e.name: e.inode() for e in os.scandir(path)}
        else:
            with open(f"/proc/self/fd/{fd}", "rb") as f:
                CONTENTS[st.st_ino] = f.read()

    os.fsync = fsync


def cut(machine: Machine, image: Path, *, names_survive: bool) -> None:
    """Write the disk's state into `image` and die."""
    tree: list[tuple[str, bytes | None]] = []

    def folder(path: str) -> None:
        now = {e.name: e.inode() for e in os.scandir(path)}
        for name, inode in (now if names_survive else ENTRIES.get(path, {})).items():
            child = f"{path}/{name}"
            where = _find(machine, inode)
            if where is None:  # removed since, but the removal was not synced: bytes as synced
                tree.append((child, CONTENTS.get(inode, b"")))
            elif os.path.isdir(where):
                tree.append((child, None))
                folder(where)
            else:
                tree.append((child, CONTENTS.get(inode, b"")))

    folder(str(machine.paths.root))
    image.write_bytes(pickle.dumps(tree))
    os._exit(KILLED)


def _find(machine: Machine, inode: int) -> str | None:
    for folder, folders, files in os.walk(machine.paths.root):
        for name in (*folders, *files):
            if os.lstat(f"{folder}/{name}").st_ino == inode:
                return f"{folder}/{name}"
    return None


def boot(machine: Machine, image: Path) -> None:
    """The host after the power is back."""
    shutil.rmtree(machine.paths.root)
    machine.paths.root.mkdir()
    for path, data in pickle.loads(image.read_bytes()):
        if data is None:
            Path(path).mkdir(parents=True, exist_ok=True)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_bytes(data)


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
            watch(machine)
            at_call(n, lambda: cut(machine, image, names_survive=names_survive))

        assert machine.install(prepare) == KILLED
        boot(machine, image)
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
        watch(machine)
        os.fsync = lambda _fd: None
        fsio.write(machine.paths.trust, machine.paths.trust.read_bytes() + b" ")
        cut(machine, image, names_survive=True)
    os.waitpid(child, 0)
    boot(machine, image)
    with pytest.raises(SealiftError) as e:
        from airgap.trust import state as trust_state

        trust_state.load(machine.paths.trust)
    assert e.value.id == "trust.state-damaged"
