"""What lies in a daemon's own folders is read as a plain file, or refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airgap.errors import IntegrityError
from airgap.host import endpoint, front, locks, logs, support, theirs
from airgap.host.paths import HostPaths


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text("only root may read this\n")
    return path


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path / "host")


def test_a_plain_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    assert theirs.read(tmp_path / "f", 4) == b"abcd"
    assert theirs.read(tmp_path / "none", 4) is None


def test_a_link_is_refused_wherever_it_lies(paths: HostPaths, secret: Path) -> None:
    place = paths.deployment("demo", "1")
    for folder in (place.run, place.logs, paths.front("demo").folder):
        folder.mkdir(parents=True)
    for path in (place.engine_log, place.endpoint, place.supervisor_lock, paths.front("demo").lock):
        path.symlink_to(secret)
    readers = (
        lambda: logs.tail(place.engine_log),
        lambda: endpoint.read(place),
        lambda: locks.holder(place.supervisor_lock),
        lambda: front.live(paths.front("demo")),
    )
    for reader in readers:
        with pytest.raises(IntegrityError, match=r"host\.not-a-file"):
            reader()


def test_a_fifo_does_not_keep_us_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "supervisor.lock")
    with pytest.raises(IntegrityError, match=r"host\.not-a-file"):
        locks.holder(tmp_path / "supervisor.lock")


def test_a_support_dump_says_that_a_log_is_a_link_and_goes_on(
    paths: HostPaths, secret: Path
) -> None:
    place = paths.deployment("demo", "1")
    place.logs.mkdir(parents=True)
    place.engine_log.symlink_to(secret)
    place.supervisor_log.write_text("a line\n")
    place.run.mkdir()
    place.endpoint.symlink_to(secret)
    found = dict(support._deployment(paths, place, []))
    said = {name.rpartition("/")[2]: text for name, text in found.items()}
    assert said["supervisor.log"] == "a line\n"
    assert said["engine.log"].startswith("host.not-a-file: ")
    assert said["endpoint.json"].startswith("host.not-a-file: ")
    assert "only root" not in "".join(found.values())
