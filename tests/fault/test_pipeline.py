"""Fetching and looking at once: the same evidence as one after the other, and really at once."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from airgap.errors import SealiftError
from airgap.events import silent
from airgap.format.artifacts import LockedFile, LockedWheels
from airgap.format.lock import Lock
from airgap.format.policy import STRICT
from bundler import pipeline
from bundler.fetch.download import Options
from bundler.scan import wheel
from bundler.scan.ahead import Ahead
from bundler.scan.memory import Task
from bundler.scan.wheelmeta import Hit
from bundler.workspace import Workspace
from tests.fault.web import File, Request, Web, serving, status
from tests.locks import lab_lock
from tests.unit.fetch.wheel_maker import make_wheel

# No batches: each file has its name at once.
OPTIONS = Options(connections=2, small_bytes=0)


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with serving() as running:
        yield running


def locked(web: Web, folder: Path) -> Lock:
    """Three wheels that `web` serves; the last one is none."""
    files = []
    for name in ("one", "two", "zero"):
        path = make_wheel(folder, name, "1.0")
        data = path.read_bytes() if name != "zero" else b"PK no wheel"
        web.files[f"/{name}"] = File(data)
        sha256 = hashlib.sha256(data).hexdigest()
        place, url = PurePosixPath(path.name), web.url(f"/{name}")
        files.append(
            LockedFile(path=place, sha256=sha256, size=len(data), label="127.0.0.1", url=url)
        )
    wheels = LockedWheels(name="wheels", requirements=("one",), files=tuple(files))
    return lab_lock(wheels)


def evidence(workspace: Workspace) -> list[bytes]:
    build = workspace.build("lab", "1")
    return [f.read_bytes() for f in (build.findings, build.coverage, build.bom, build.provenance)]


def one_after_the_other(lock: Lock, folder: Path) -> list[bytes]:
    workspace = Workspace(folder)
    pipeline.fetch(lock, workspace, silent, OPTIONS)
    pipeline.scan(lock, workspace, STRICT)
    return evidence(workspace)


def test_a_wheel_is_looked_at_while_another_still_comes(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second wheel leaves its server only after the first one was examined."""
    lock = locked(web, tmp_path)
    expected = one_after_the_other(lock, tmp_path / "calm")
    seen, examined, examine = threading.Event(), [], wheel.examine

    def watched(path: Path, file_name: str) -> tuple[list[Hit], bool]:
        found = examine(path, file_name)
        examined.append(file_name)
        seen.set()
        return found

    def wait(_r: Request) -> bool:
        assert seen.wait(20)
        return False

    monkeypatch.setattr(wheel, "examine", watched)
    web.files["/two"].every = wait
    workspace = Workspace(tmp_path / "home")
    pipeline.fetch_and_scan(lock, workspace, STRICT, options=OPTIONS)
    assert evidence(workspace) == expected
    assert sorted(examined) == sorted(f.path.name for f in lock.artifacts[0].files)


def test_a_build_that_failed_on_the_way_ends_in_the_same_evidence(web: Web, tmp_path: Path) -> None:
    lock = locked(web, tmp_path)
    expected = one_after_the_other(lock, tmp_path / "calm")
    web.files["/two"].every = status(404)
    workspace = Workspace(tmp_path / "home")
    with pytest.raises(SealiftError) as caught:
        pipeline.fetch_and_scan(lock, workspace, STRICT, options=OPTIONS)
    assert caught.value.id == "source.http"
    assert not workspace.build("lab", "1").findings.exists()
    web.files["/two"].every = None
    pipeline.fetch_and_scan(lock, workspace, STRICT, options=OPTIONS)
    assert evidence(workspace) == expected


def test_what_failed_ahead_is_done_by_who_asks() -> None:
    ahead, calls = Ahead(), []

    def work() -> str:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise OSError("not yet")
        return "found"

    task = Task(("scanner", "sha256", "name"), work, str, str)
    ahead.begin(task)
    ahead.begin(task)
    assert ahead.result(task) == "found"
    assert calls[-1] == threading.current_thread().name
    assert ahead.result(Task(("scanner", "sha256", "other"), lambda: 7, int, int)) == 7
    ahead.close()
