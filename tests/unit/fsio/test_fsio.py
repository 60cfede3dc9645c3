"""The durable write: order of calls, and what is left when one of them fails."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airgap import fsio
from airgap.errors import DiskError, HostError, SealiftError

WRITES = ["write", "create"]


def test_bytes_are_synced_before_the_name_and_the_name_through_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def spy(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kw: Any) -> Any:
            calls.append("fsync-dir" if name == "fsync" and _is_dir(args[0]) else name)
            return real(*args, **kw)

        monkeypatch.setattr(os, name, call)

    for name in ("write", "fsync", "rename"):
        spy(name)
    fsio.write(tmp_path / "f", b"data")
    assert calls == ["write", "fsync", "rename", "fsync-dir"]


def _is_dir(fd: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("call", ["open", "write", "fsync", "fchmod", "rename"])
@pytest.mark.parametrize(
    ("code", "error", "exit_code"),
    [
        (errno.ENOSPC, "disk.full", 8),
        (errno.EDQUOT, "disk.full", 8),
        (errno.EFBIG, "disk.full", 8),
        (errno.EIO, "disk.error", 8),
        (errno.EROFS, "host.permission", 7),
        (errno.EACCES, "host.permission", 7),
    ],
)
def test_failed_write_keeps_the_old_file_and_nothing_else(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    error: str,
    exit_code: int,
) -> None:
    path = tmp_path / "f"
    fsio.write(path, b"old")

    def fail(*_args: Any, **_kw: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as m:
        m.setattr(os, call, fail)
        with pytest.raises(SealiftError) as e:
            fsio.write(path, b"new")
    assert (e.value.id, e.value.exit_code) == (error, exit_code)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:3]))
    fsio.write(tmp_path / "f", b"0123456789")
    assert (tmp_path / "f").read_bytes() == b"0123456789"


def test_created_file_never_replaces_one(tmp_path: Path) -> None:
    fsio.create(tmp_path / "f", b"mine", 0o600)
    assert os.stat(tmp_path / "f").st_mode & 0o777 == 0o600
    with pytest.raises(SealiftError):
        fsio.create(tmp_path / "f", b"theirs")
    assert (tmp_path / "f").read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_link_in_the_place_of_a_file_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"keep")
    (tmp_path / "f").symlink_to("outside")
    fsio.write(tmp_path / "f", b"new")
    assert (tmp_path / "outside").read_bytes() == b"keep"
    assert not (tmp_path / "f").is_symlink()


def test_append_through_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"keep")
    (tmp_path / "f").symlink_to("outside")
    with pytest.raises(SealiftError):
        fsio.append(tmp_path / "f", b"x", 0)
    assert (tmp_path / "outside").read_bytes() == b"keep"


def test_switched_link_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsio.symlink("1", tmp_path / "current")

    def fail(*_args: Any) -> None:
        raise OSError(errno.EIO, "x")

    with monkeypatch.context() as m:
        m.setattr(os, "rename", fail)
        with pytest.raises(DiskError):
            fsio.symlink("2", tmp_path / "current")
    assert os.readlink(tmp_path / "current") == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["current"]


def test_removal_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/keep").write_bytes(b"x")
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/link").symlink_to(tmp_path / "outside")
    fsio.remove_tree(tmp_path / "tree")
    assert (tmp_path / "outside/keep").exists() and not (tmp_path / "tree").exists()
    (tmp_path / "top").symlink_to(tmp_path / "outside")
    fsio.remove_tree(tmp_path / "top")
    assert (tmp_path / "outside/keep").exists()


def test_lock_is_held_by_one_and_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys; from pathlib import Path; from airgap import fsio\n"
        "with fsio.exclusive(Path(sys.argv[1]), 'x'): print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == b"1\n"
        with pytest.raises(HostError) as e, fsio.exclusive(lock, "a test"):
            pass
        assert (e.value.id, e.value.exit_code) == ("host.busy", 7)
        child.kill()
    with fsio.exclusive(lock, "a test"):
        assert lock.exists()


def test_sweep_takes_temporaries_only(tmp_path: Path) -> None:
    (tmp_path / ".tmp-0").write_bytes(b"")
    (tmp_path / "f").write_bytes(b"")
    fsio.sweep(tmp_path)
    fsio.sweep(tmp_path / "absent")
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_removal_is_not_led_away_by_a_folder_that_becomes_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below may write who has no rights anywhere else, while root removes it."""
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "keep").write_bytes(b"x")
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/file").write_bytes(b"x")
    real = os.open

    def swapped(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if path == "sub":
            os.rename(tree / "sub", tmp_path / "away")
            (tree / "sub").symlink_to(outside)
        return real(path, flags, *args, **kwargs)

    with monkeypatch.context() as m:
        m.setattr(os, "open", swapped)
        with pytest.raises(SealiftError):
            fsio.remove_tree(tree)
    assert (outside / "keep").exists() and (tmp_path / "away/file").exists()
    fsio.remove_tree(tree)
    assert not tree.exists() and (outside / "keep").exists()


def test_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    """Deeper than the stack is and than files may be open; its owner chose the depth."""
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    fsio.remove_tree(tmp_path / "d")
    assert list(tmp_path.iterdir()) == []
