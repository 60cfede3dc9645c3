"""A switch and a rollback are stopped at every call that changes the disk, by a kill or by the
power: one of the two versions is current and whole, and the same command again finishes.

The disk is the point here: engine, front and smoke test are doubles that do nothing. Real ones are
killed in tests/e2e/test_host_serving.py.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from airgap import fsio
from airgap.format.manifest import Manifest
from airgap.host import activate, launch, ledger, probation, services, smoke
from airgap.host.deployment import DeploymentRecord, load, trees
from airgap.host.paths import HostPaths
from airgap.host.smoke import Smoke
from airgap.host.stage import link_files
from airgap.store import Store
from tests.fault.disk import boot, cut, watch
from tests.fault.machine import KILLED, at_call, die
from tests.unit.host.parts import digest_of, make_manifest

NAME = "tiny"


def put(paths: HostPaths, version: str) -> Manifest:
    """A deployment without an environment."""
    manifest = make_manifest(paths, version)
    place = paths.deployment(NAME, version)
    link_files(Store(paths.store), trees(place, manifest))
    record = DeploymentRecord(
        name=NAME,
        version=version,
        manifest=digest_of(manifest),
        engine="llama.cpp",
        python="x",
        installer="x",
        staged=1,
    )
    fsio.write(place.manifest, manifest.to_bytes())
    fsio.write(place.record, record.to_bytes())
    return manifest


def doubles() -> None:
    """Nothing is started, asked or stopped."""
    nothing = lambda *_a, **_k: None  # noqa: E731
    services.front_ahead = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]
    smoke.smoke = lambda *_: Smoke((), ())
    smoke.check_models = nothing
    services.drain = lambda *_: True
    for name in ("start_engine", "stop_engine", "start_front", "stop_door"):
        setattr(services, name, nothing)
    launch.at_boot = nothing


def switch(paths: HostPaths) -> None:
    manifest = load(paths, NAME, "2").manifest
    activate.activate(paths, manifest, digest_of(manifest), lambda _event: None)


def roll_back(paths: HostPaths) -> None:
    activate.rollback(paths, NAME, lambda _manifest, _digest: None)


ACTS: dict[str, tuple[Callable[[HostPaths], None], tuple[str, ...], str]] = {
    # what is done, what served before it, what serves after it
    "switch": (switch, ("1",), "2"),
    "rollback": (roll_back, ("1", "2"), "1"),
}


class Host:
    def __init__(self, folder: Path, act: str) -> None:
        self.paths = HostPaths(folder / "host")
        self._kept = folder / "kept"
        self.act, self.before, self.after = ACTS[act]
        for version in ("1", "2"):
            put(self.paths, version)
        for version in self.before:
            digest = load(self.paths, NAME, version).digest
            ledger.append(
                self.paths.ledger,
                "switch",
                {"name": NAME, "version": version, "manifest": digest},
            )
            fsio.symlink(version, self.paths.current_link(NAME))
        shutil.copytree(self.paths.root, self._kept, symlinks=True)

    def again(self) -> None:
        shutil.rmtree(self.paths.root)
        shutil.copytree(self._kept, self.paths.root, symlinks=True)

    def run(self, prepare: Callable[[], None] = lambda: None) -> int:
        child = os.fork()
        if child == 0:
            try:
                doubles()
                prepare()
                with self.paths.exclusive("test"):
                    self.act(self.paths)
            except BaseException:  # noqa: BLE001 - a child of a fork must not go on as pytest
                traceback.print_exc(file=sys.stderr)
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def calls(self) -> int:
        read, write = os.pipe()
        assert self.run(lambda: at_call(-1, lambda: None, write)) == 0
        os.close(write)
        with os.fdopen(read, "rb") as f:
            return len(f.read())

    def check_sound(self) -> None:
        current = self.paths.current_version(NAME)
        assert current in ("1", "2")
        assert load(self.paths, NAME, current).manifest.version == current
        probation.until(self.paths, NAME, current)
        served = [version for version, _ in activate.history(self.paths, NAME)]
        assert served in ([*self.before], [*self.before, self.after])

    def check_finished(self) -> None:
        done = self.paths.current_version(NAME) == self.after
        if self.act is not roll_back or not done or self.paths.rollback_note(NAME).exists():
            # Of a rollback that is over, the same command is the next one.
            assert self.run() == 0
        assert self.paths.current_version(NAME) == self.after
        served = [version for version, _ in activate.history(self.paths, NAME)]
        assert served == [*self.before, self.after]
        assert not self.paths.rollback_note(NAME).exists()
        left = [p for p in self.paths.root.rglob("*") if p.name.startswith(".tmp-")]
        assert left == []


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("how", ["killed", "names lost", "names kept"])
def test_stopped_at_every_changing_call_it_is_finished_by_the_same_command(
    tmp_path: Path, act: str, how: str
) -> None:
    host, image = Host(tmp_path, act), tmp_path / "disk"
    total = host.calls()
    assert total > 10
    for number in range(total):
        host.again()

        def prepare(n: int = number) -> None:
            root = host.paths.root
            if how == "killed":
                at_call(n, die)
                return
            watch(root)
            at_call(n, partial(cut, root, image, names_survive=how == "names kept"))

        assert host.run(prepare) == KILLED
        if how != "killed":
            boot(host.paths.root, image)
        host.check_sound()
        host.check_finished()
    print(f"{act}, {how}: {total} calls")


def test_rollback_interrupted_behind_its_switch_is_finished_by_the_same_command(
    tmp_path: Path,
) -> None:
    """Ctrl-C while connections of the other version are waited for."""
    host = Host(tmp_path, "rollback")

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    def prepare() -> None:
        services.drain = interrupted

    assert host.run(prepare) == 1
    assert host.paths.current_version(NAME) == "1"
    host.check_sound()
    host.check_finished()


def test_a_rollback_that_never_switched_is_forgotten_by_the_next_switch(tmp_path: Path) -> None:
    host = Host(tmp_path, "rollback")
    fsio.write(host.paths.rollback_note(NAME), b"1")
    host.act = switch
    assert host.run() == 0
    assert not host.paths.rollback_note(NAME).exists()
