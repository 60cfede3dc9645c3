"""An engine that was taken over spoils what it owns: nothing else waits, fails or trusts it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airgap.errors import IntegrityError
from airgap.host import activate, launch, service, services
from airgap.host.paths import HostPaths
from airgap.host.stage import stage
from airgap.host.status import status
from tests.unit.host.parts import UV, digest_of, make_manifest


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path / "host")


def test_one_that_cannot_be_ended_keeps_no_other_from_ending(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def stop(_paths: HostPaths, lock: Path, _seconds: float, *words: str) -> bool:
        asked.append(words)
        if words == ("supervise-gateway", "tiny", "1"):
            raise IntegrityError("host.not-a-file", "x", why="x", do="x")
        return True

    monkeypatch.setattr(launch, "stop", stop)
    with pytest.raises(IntegrityError):
        for version in ("1", "2"):
            (paths.deployment("tiny", version).folder).mkdir(parents=True)
        activate.stop(paths, "tiny")
    kinds = ("supervise-gateway", "supervise")
    wanted = [(kind, "tiny", v) for v in ("1", "2") for kind in kinds]
    assert [words for words in asked if words[0] in kinds] == wanted


def test_who_spoiled_where_it_listens_is_not_waited_for(paths: HostPaths) -> None:
    place = paths.deployment("tiny", "1")
    place.run.mkdir(parents=True)
    os.mkfifo(place.supervisor_lock)
    assert services.drain(place) is False


def test_spoiled_file_of_one_deployment_hides_no_other_from_status(paths: HostPaths) -> None:
    for version in ("1", "2"):
        manifest = make_manifest(paths, version)
        stage(paths, manifest, digest_of(manifest), uv=UV)
    os.mkfifo(paths.deployment("tiny", "1").supervisor_lock)
    found = {s.version: s.state for s in status(paths)}
    assert found == {"1": "damaged", "2": "stopped"}


def test_what_the_daemons_of_one_user_left_is_not_the_next_ones(paths: HostPaths) -> None:
    place = paths.deployment("tiny", "1")
    caches = place.run / "home/.triton"
    kept = place.folder / "manifest.json"
    for folder in (caches, place.gateway.run, place.tmp, place.logs, paths.door("tiny").folder):
        folder.mkdir(parents=True)
    os.mkfifo(place.supervisor_log)
    kept.write_text("{}")
    service.clear(paths)
    assert [p.name for p in place.folder.rglob("*") if p.is_file() or p.is_fifo()] == [kept.name]
    assert not caches.exists() and not paths.door("tiny").folder.exists()
