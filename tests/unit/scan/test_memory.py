"""What was found before is found again without reading, while nothing speaks against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from airgap.events import Event, Warn
from airgap.format.artifacts import LockedFile, LockedWheels
from airgap.format.lock import Lock
from airgap.format.policy import STRICT
from bundler import pipeline
from bundler.scan import image, memory, wheel
from bundler.scan.ahead import Ahead
from bundler.scan.layers import Layer
from bundler.scan.memory import Memory, Task
from bundler.scan.report import Fault
from bundler.scan.wheelmeta import Hit
from bundler.workspace import Workspace
from tests.locks import lab_lock
from tests.unit.fetch.wheel_maker import make_wheel


@pytest.fixture
def examined(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the wheels that were read, in order."""
    names: list[str] = []
    examine = wheel.examine

    def watched(path: Path, file_name: str) -> tuple[list[Hit], bool]:
        names.append(file_name)
        return examine(path, file_name)

    monkeypatch.setattr(wheel, "examine", watched)
    return names


@pytest.fixture
def desk(tmp_path: Path) -> tuple[Workspace, Lock]:
    """Two sound wheels and one that is none, in the store."""
    workspace = Workspace(tmp_path / "home")
    workspace.store.prepare()
    files = []
    for name in ("broken", "one", "two"):
        path = make_wheel(tmp_path, name, "1.0")
        if name == "broken":
            path.write_bytes(b"PK no wheel")
        sha256 = workspace.store.add_file(path).sha256
        place, size = PurePosixPath(path.name), path.stat().st_size
        locked = LockedFile(path=place, sha256=sha256, size=size, label="l", url="https://x/y")
        files.append(locked)
    made = LockedWheels(name="wheels", requirements=("one",), files=tuple(files))
    return workspace, lab_lock(made)


def look(desk: tuple[Workspace, Lock], *, afresh: bool = False) -> tuple[bytes, bytes]:
    """Findings and coverage of a scan."""
    workspace, lock = desk
    build = pipeline.scan(lock, workspace, STRICT, afresh=afresh)
    return build.findings.read_bytes(), build.coverage.read_bytes()


def test_second_scan_reads_only_what_was_refused(
    desk: tuple[Workspace, Lock], examined: list[str]
) -> None:
    first = look(desk)
    assert len(examined) == 3
    examined.clear()
    assert look(desk) == first
    assert [n.split("-")[0] for n in examined] == ["broken"]


def test_afresh_reads_all_again(desk: tuple[Workspace, Lock], examined: list[str]) -> None:
    first = look(desk)
    examined.clear()
    assert look(desk, afresh=True) == first
    assert len(examined) == 3


def test_afresh_corrects_what_was_remembered(
    desk: tuple[Workspace, Lock], examined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finding that should not have been kept does not outlive a scan that reads again."""
    look(desk)
    with monkeypatch.context() as patch:
        patch.setattr(wheel, "examine", lambda *_: ([], False))
        look(desk, afresh=True)
    examined.clear()
    look(desk)
    assert len(examined) == 3
    examined.clear()
    look(desk)
    assert [n.split("-")[0] for n in examined] == ["broken"]


def test_other_bytes_than_the_name_says_are_not_looked_at_for_it(
    desk: tuple[Workspace, Lock],
) -> None:
    """Evidence is about a SHA-256. A blob that the disk changed covers nothing, and what was found
    in it is kept nowhere."""
    workspace, lock = desk
    said: list[Event] = []
    wheels = lock.artifacts[0]
    assert isinstance(wheels, LockedWheels)
    blob = workspace.store.blob_path(wheels.files[1].sha256)
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-1] + b"\1")
    build = pipeline.scan(lock, workspace, STRICT, said.append)
    assert b'"covered"' not in build.coverage.read_bytes()
    assert any(isinstance(e, Warn) and "has other bytes" in e.text for e in said)
    blob.write_bytes(data)
    assert look(desk)[1].count(b'"covered"') == 2


def flipped(place: Path) -> None:
    said = json.loads(place.read_text())
    said["found"] = [["wheel.invented", "info", "not found by anybody", []]]
    place.write_text(json.dumps(said))


def of_another_file(place: Path) -> None:
    other = next(p for p in place.parent.iterdir() if p != place)
    place.write_bytes(other.read_bytes())


SPOILED: dict[str, Callable[[Path], object]] = {
    "other findings": flipped,
    "another file's": of_another_file,
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-5]),
    "empty": lambda p: p.write_bytes(b""),
    "no table": lambda p: p.write_bytes(b"[1]"),
    "folder": lambda p: (p.unlink(), p.mkdir()),
}


@pytest.mark.parametrize("how", SPOILED)
def test_spoiled_memory_is_not_believed(
    desk: tuple[Workspace, Lock], examined: list[str], how: str
) -> None:
    first = look(desk)
    place = sorted((desk[0].memory / memory.scanners()).iterdir())[0]
    SPOILED[how](place)
    examined.clear()
    assert look(desk) == first
    assert len(examined) == 2  # the broken wheel, and the one whose memory was spoiled


def test_other_scanners_remember_nothing(
    desk: tuple[Workspace, Lock], examined: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = look(desk)
    examined.clear()
    monkeypatch.setattr(memory, "scanners", lambda: "other")
    assert look(desk) == first
    assert len(examined) == 3
    assert [p.name for p in desk[0].memory.iterdir()] == ["other"]


def test_where_nothing_can_be_kept_the_evidence_is_the_same(
    desk: tuple[Workspace, Lock],
) -> None:
    workspace = desk[0]
    workspace.cache.mkdir()
    workspace.memory.write_text("no folder")
    with_none = look(desk)
    workspace.memory.unlink()
    assert look(desk) == with_none
    assert (workspace.memory / memory.scanners()).is_dir()


def test_the_code_that_looks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = memory.scanners()
    assert len(name) == 32
    monkeypatch.setattr("zstandard.__version__", "0")
    assert memory.scanners.__wrapped__() != name


def test_layer_comes_back_as_it_was(tmp_path: Path) -> None:
    layer = Layer("0" * 64, 7, 2, ["bin/su\udcff"], [("image.fifo", "low", "p is a named pipe")])
    kept = Memory(tmp_path / "m")
    task = image.task("1" * 64, tmp_path / "absent", "gzip")
    kept.keep(task, layer)
    assert Memory(tmp_path / "m").find(task) == (layer,)
    assert Ahead(Memory(tmp_path / "m")).result(task) == layer  # no file is there to be read
    other = image.task("1" * 64, tmp_path / "absent", "tar")
    assert kept.find(other) is None


def test_refused_layer_is_not_kept(tmp_path: Path) -> None:
    kept = Memory(tmp_path / "m")
    task = image.task("1" * 64, tmp_path / "absent", "gzip")
    kept.keep(task, Fault("image.layer", "the gzip ends early"))
    assert not (tmp_path / "m").exists() and kept.find(task) is None


def test_what_is_too_long_is_looked_for_again(tmp_path: Path) -> None:
    kept = Memory(tmp_path / "m")
    task = Task(("scanner", "1" * 64, "name"), lambda: "", str, str)
    kept.keep(task, "x" * (5 << 20))
    assert kept.find(task) is None
