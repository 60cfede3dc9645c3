"""The store: only checked bytes under a name, whatever the source does meanwhile."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from airgap.errors import IntegrityError, SealiftError
from airgap.store import Store, hash_file

DATA = b"weights" * 1000
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    made.prepare()
    return made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def empty(store: Store) -> bool:
    return [p for p in store.root.rglob("*") if not p.is_dir()] == []


def test_what_is_taken_in_has_its_digest_as_its_name_and_is_read_only(
    store: Store, source: Path
) -> None:
    assert store.add_file(source, expect_sha256=SHA, expect_size=len(DATA)).sha256 == SHA
    blob = store.blob_path(SHA)
    assert blob.read_bytes() == DATA
    assert os.lstat(blob).st_mode & 0o222 == 0
    assert store.has(SHA, len(DATA)) and not store.has(SHA, 1)


@pytest.mark.parametrize("change", [b"", DATA[:-1], DATA + b"x", b"W" + DATA[1:]])
def test_other_bytes_are_refused_and_nothing_is_kept(
    store: Store, source: Path, change: bytes
) -> None:
    source.write_bytes(change)
    for take in (
        lambda: store.add_file(source, expect_sha256=SHA, expect_size=len(DATA)),
        lambda: store.adopt(source, SHA, len(DATA)),
    ):
        with pytest.raises(IntegrityError) as e:
            take()
        assert e.value.exit_code == 3
        assert empty(store)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "absent"])
def test_source_that_is_no_plain_file_is_refused(store: Store, source: Path, kind: str) -> None:
    path = source.with_name(kind)
    if kind == "link":
        path.symlink_to(source)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    for take in (lambda: store.add_file(path), lambda: store.adopt(path, SHA, len(DATA))):
        with pytest.raises(SealiftError):
            take()
        assert empty(store)


def endless(_fd: int, buffers: list[memoryview]) -> int:
    return len(buffers[0])


def test_file_that_never_ends_is_not_followed(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the right size when it was opened, and grows as it is read."""
    monkeypatch.setattr(os, "readv", endless)
    for read in (
        lambda: hash_file(source, expect_size=len(DATA)),
        lambda: store.add_file(source, expect_sha256=SHA, expect_size=len(DATA)),
        lambda: store.adopt(source, SHA, len(DATA)),
    ):
        with pytest.raises(IntegrityError) as e:
            read()
        assert e.value.id == "integrity.size"
        assert empty(store)


def test_adopted_file_that_is_exchanged_while_it_is_linked_is_refused(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def exchange_first(src: Path, dst: Path, **kw: bool) -> None:
        evil = source.with_name("evil")
        evil.write_bytes(b"evil" + DATA[4:])
        os.replace(evil, source)
        real(src, dst, **kw)

    monkeypatch.setattr(os, "link", exchange_first)
    with pytest.raises(IntegrityError):
        store.adopt(source, SHA, len(DATA))
    assert empty(store)


def test_source_exchanged_while_it_is_copied_leaves_the_bytes_that_were_opened(
    store: Store, source: Path
) -> None:
    def exchange(_count: int) -> None:
        evil = source.with_name("evil")
        evil.write_bytes(b"evil" + DATA[4:])
        os.replace(evil, source)

    store.add_file(source, expect_sha256=SHA, expect_size=len(DATA), on_bytes=exchange)
    assert store.blob_path(SHA).read_bytes() == DATA


def test_damaged_blob_is_replaced_and_what_a_killed_run_left_is_dropped(
    store: Store, source: Path
) -> None:
    blob = store.blob_path(SHA)
    blob.write_bytes(b"x" * len(DATA))
    (store.root / "incoming/.tmp-0123").write_bytes(b"half")
    store.prepare()
    store.add_file(source, expect_sha256=SHA, expect_size=len(DATA))
    assert blob.read_bytes() == DATA
    assert list((store.root / "incoming").iterdir()) == []


def test_link_under_a_blobs_name_is_not_had(store: Store, source: Path) -> None:
    store.blob_path(SHA).symlink_to(source)
    assert not store.has(SHA, len(DATA))
    store.add_file(source, expect_sha256=SHA, expect_size=len(DATA))
    assert not store.blob_path(SHA).is_symlink() and source.read_bytes() == DATA


def test_failing_removal_of_a_half_written_blob_hides_no_error(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kw: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(IntegrityError) as e:
        store.add_file(source, expect_sha256="0" * 64)
    assert e.value.id == "integrity.digest"
