"""Model folders on this machine, honest and hostile."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from airgap.errors import IntegrityError, SealiftError, SourceError
from airgap.events import Event, Line, Progress, silent
from airgap.format.artifacts import LockedModel
from airgap.format.request import ModelRequest
from airgap.store import Store
from bundler.fetch.models import lock_model

HEADER = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
SAFETENSORS = len(HEADER).to_bytes(8, "little") + HEADER + b"\x01"
GGUF = b"GGUF" + bytes(60)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(SAFETENSORS)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "notes.txt").write_text("notes")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def lock(folder: Path, store: Store, **more: object) -> LockedModel:
    request = ModelRequest(path=str(folder), **more)  # type: ignore[arg-type]
    return lock_model(request, Path("/"), store, silent)


def refused(folder: Path, store: Store, **more: object) -> SealiftError:
    with pytest.raises(SourceError) as caught:
        lock(folder, store, **more)
    assert caught.value.exit_code == 6
    assert not store.blobs.exists()
    return caught.value


def test_a_folder_is_pinned_and_lies_in_the_store(model: Path, store: Store) -> None:
    locked = lock(model, store)
    assert [str(f.path) for f in locked.files] == [
        "config.json",
        "model.safetensors",
        "sub/notes.txt",
    ]
    assert locked.format == "safetensors"
    assert locked.files[1].sha256 == hashlib.sha256(SAFETENSORS).hexdigest()
    assert all(store.has(f.sha256, f.size) for f in locked.files)


def test_no_path_of_this_machine_is_in_the_lock(model: Path, store: Store) -> None:
    text = lock(model, store).to_bytes().decode()
    assert str(model.parent) not in text
    assert '"source":"local/model"' in text


def test_a_single_gguf_is_a_model(tmp_path: Path, store: Store) -> None:
    (tmp_path / "m.gguf").write_bytes(GGUF)
    locked = lock(tmp_path / "m.gguf", store)
    assert (locked.format, [str(f.path) for f in locked.files]) == ("gguf", ["m.gguf"])


def test_weights_are_known_by_content_not_by_name(tmp_path: Path, store: Store) -> None:
    (tmp_path / "blob").write_bytes(GGUF)
    assert lock(tmp_path / "blob", store).format == "gguf"


def test_the_revision_names_exactly_these_bytes(model: Path, store: Store) -> None:
    first = lock(model, store).revision
    assert lock(model, store).revision == first
    (model / "config.json").write_text("{ }")
    assert lock(model, store).revision != first


def test_include_and_exclude_choose(model: Path, store: Store) -> None:
    (model / "model.gguf").write_bytes(GGUF)
    assert refused(model, store).id == "source.two-formats"
    locked = lock(model, store, exclude=("*.gguf", "sub/"))
    assert [str(f.path) for f in locked.files] == ["config.json", "model.safetensors"]
    assert [str(f.path) for f in lock(model, store, include=("*.gguf",)).files] == ["model.gguf"]


def test_bookkeeping_is_left_out_and_said(model: Path, store: Store) -> None:
    (model / ".git").mkdir()
    (model / ".git" / "config").write_text("secret")
    (model / ".gitattributes").write_text("x")
    seen: list[Event] = []
    locked = lock_model(ModelRequest(path=str(model)), Path("/"), store, seen.append)
    assert len(locked.files) == 3
    said = " ".join(e.text for e in seen if isinstance(e, Line))
    assert ".git " in said
    assert ".gitattributes" in said
    last = [e for e in seen if isinstance(e, Progress)][-1]
    assert (last.done, last.files_done) == (last.total, 3)


def test_a_link_out_of_the_folder_is_refused(model: Path, store: Store) -> None:
    (model / "tokenizer.json").symlink_to("/etc/passwd")
    assert refused(model, store).id == "source.link"


def test_a_linked_folder_is_refused(model: Path, store: Store) -> None:
    (model / "more").symlink_to(model.parent)
    assert refused(model, store).id == "source.link"


def test_a_pipe_is_refused_and_never_opened(model: Path, store: Store) -> None:
    os.mkfifo(model / "weights.safetensors")
    assert refused(model, store).id == "source.special"


def test_a_socket_is_refused(model: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model)
    with socket.socket(socket.AF_UNIX) as s:
        s.bind("s")
        assert refused(model, store).id == "source.special"


@pytest.mark.parametrize(
    "name",
    [b"a\\b", b"a:b", b"con.json", b"new\nline", b"\xff\xfe", "a\u202egnp.exe".encode(), b"dot."],
)
def test_a_name_that_cannot_travel_is_refused(model: Path, store: Store, name: bytes) -> None:
    with open(os.path.join(os.fsencode(model), name), "wb") as f:
        f.write(b"x")
    error = refused(model, store)
    assert error.id == "source.name"
    assert error.what.isascii()
    assert error.what.isprintable()


def test_a_folder_without_weights_is_refused(model: Path, store: Store) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    assert refused(model, store).id == "source.no-weights"


def test_an_empty_folder_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty", store).id == "source.empty"


def test_a_model_that_is_not_there_is_refused(tmp_path: Path, store: Store) -> None:
    assert refused(tmp_path / "nowhere", store).id == "source.missing"


def test_a_file_that_grows_while_it_is_read_is_refused(
    model: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.readv

    def grows(fd: int, buffers: list[memoryview]) -> int:
        count = real(fd, buffers)
        if count:
            with (model / "config.json").open("ab") as f:
                f.write(b"more")
        return count

    monkeypatch.setattr("airgap.store._clone", lambda _a, _b: False)
    monkeypatch.setattr(os, "readv", grows)
    with pytest.raises(IntegrityError):
        lock(model, store, include=("config.json", "model.safetensors"))
    assert list((store.root / "incoming").iterdir()) == []
