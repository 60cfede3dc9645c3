"""Request -> lock -> store, through the public functions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import IntegrityError, SealiftError, SourceError, UsageError
from airgap.format.lock import Lock
from airgap.format.request import ImageRequest, ModelRequest, Request, WheelsRequest
from airgap.format.types import Check, Gateway, Serve, Target
from bundler.digests import SMALL_BYTES, blake3_of
from bundler.fetch.locked import fetch_locked
from bundler.lock import make_lock
from bundler.workspace import Workspace
from tests.unit.fetch.wheel_maker import make_wheel
from tests.unit.lock.test_local import GGUF, SAFETENSORS

NOW = 1_790_000_000
TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A home beside one GGUF and one folder of wheels; no index is asked."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (tmp_path / "m.gguf").write_bytes(GGUF)
    make_wheel(tmp_path / "wheels", "tinywheel", "1.0")
    return Workspace(tmp_path / "home")


def ask(**changes: Any) -> Request:
    request = Request(
        name="tiny",
        version="1",
        target=TARGET,
        model=(ModelRequest(path="m.gguf"),),
        wheels=(WheelsRequest(requirements=("tinywheel",), find_links=("wheels",)),),
        serve=Serve(engine="llama.cpp", name="tiny"),
    )
    return dataclasses.replace(request, **changes)


def lock(workspace: Workspace, request: Request, **more: Any) -> Lock:
    return make_lock(request, base=workspace.home.parent, workspace=workspace, now=NOW, **more)


def refused(workspace: Workspace, request: Request) -> SealiftError:
    with pytest.raises(SealiftError) as caught:
        lock(workspace, request)
    assert not workspace.build("tiny", "1").lock.exists()
    return caught.value


def test_the_lock_is_complete_and_written(workspace: Workspace) -> None:
    made = lock(workspace, ask(valid_days=10), release=7)
    assert (made.release, made.created, made.not_after) == (7, NOW, NOW + 864_000)
    assert [a.name for a in made.artifacts] == ["model", "wheels"]
    assert Lock.from_bytes(workspace.build("tiny", "1").lock.read_bytes()) == made


def test_the_same_request_and_time_give_the_same_bytes(workspace: Workspace) -> None:
    assert lock(workspace, ask()).to_bytes() == lock(workspace, ask()).to_bytes()


def test_the_requests_release_counts(workspace: Workspace) -> None:
    assert lock(workspace, ask(release=3), release=9).release == 3


def test_what_was_taken_in_needs_no_fetching(workspace: Workspace) -> None:
    made = lock(workspace, ask())
    fetch_locked(made, workspace)
    for f in (f for a in made.artifacts for f in a.files):
        assert len(blake3_of(workspace.store, f.sha256)) == 64


def test_a_local_file_that_left_the_store_is_named(workspace: Workspace) -> None:
    made = lock(workspace, ask())
    workspace.store.blob_path(made.artifacts[0].files[0].sha256).unlink()
    with pytest.raises(SourceError, match=r"source\.gone: m\.gguf"):
        fetch_locked(made, workspace)


def test_the_blake3_of_a_small_blob_that_rotted_is_not_told(workspace: Workspace) -> None:
    blob = workspace.store.blob_path(workspace.store.add_bytes(b"sound").sha256)
    blob.chmod(0o644)
    blob.write_bytes(b"wrong")
    with pytest.raises(IntegrityError, match=r"integrity\.digest"):
        blake3_of(workspace.store, blob.name)


def test_a_torn_blake3_cache_is_made_again(workspace: Workspace) -> None:
    digest = workspace.store.add_bytes(bytes(SMALL_BYTES + 1)).sha256
    right = blake3_of(workspace.store, digest)
    (workspace.store.root / "blake3" / digest).write_text(right[:20])
    assert blake3_of(workspace.store, digest) == right


@pytest.mark.parametrize(
    ("changes", "id", "exit_code"),
    [
        (
            {"image": (ImageRequest(reference="A/b:1", platform="linux/amd64"),)},
            "request.reference",
            2,
        ),
        ({"serve": Serve(engine="llama.cpp", runtime="image", name="t")}, "request.invalid", 2),
        ({"serve": Serve(engine="llama.cpp", name="t", model="other")}, "request.invalid", 2),
        ({"wheels": ()}, "request.invalid", 2),
        (
            {"serve": Serve(engine="llama.cpp", name="t", gateway=Gateway(wheels="gate"))},
            "request.invalid",
            2,
        ),
        (
            {"serve": Serve(engine="llama.cpp", name="t", gateway=Gateway(image="gate"))},
            "request.invalid",
            2,
        ),
        ({"model": (ModelRequest(path="no.gguf"),)}, "source.missing", 6),
        (
            {"serve": Serve(engine="llama.cpp", name="t", check=(Check(prompt="?", expect="("),))},
            "request.invalid",
            2,
        ),
    ],
)
def test_what_cannot_be_locked_says_why(
    workspace: Workspace, changes: dict[str, Any], id: str, exit_code: int
) -> None:
    error = refused(workspace, ask(**changes))
    assert (error.id, error.exit_code) == (id, exit_code)


def test_an_engine_that_cannot_serve_the_format_is_refused(workspace: Workspace) -> None:
    (workspace.home.parent / "m").mkdir()
    (workspace.home.parent / "m" / "model.safetensors").write_bytes(SAFETENSORS)
    error = refused(workspace, ask(model=(ModelRequest(path="m"),)))
    assert (error.id, error.exit_code) == ("request.engine", 2)


def test_a_failed_lock_leaves_the_older_one(workspace: Workspace) -> None:
    lock(workspace, ask())
    before = workspace.build("tiny", "1").lock.read_bytes()
    with pytest.raises(UsageError):
        lock(workspace, ask(wheels=()))
    assert workspace.build("tiny", "1").lock.read_bytes() == before


def test_names_that_collide_on_other_file_systems_are_refused(workspace: Workspace) -> None:
    folder = workspace.home.parent / "m"
    folder.mkdir()
    for name in ("model.gguf", "README", "readme"):
        (folder / name).write_bytes(GGUF)
    assert refused(workspace, ask(model=(ModelRequest(path="m"),))).id == "source.unfit"


def test_the_home_is_named_by_option_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace.find(Path("here"), {"SEALIFT_HOME": "/there"}).home == tmp_path / "here"
    assert Workspace.find(None, {"SEALIFT_HOME": "/there"}).home == Path("/there")
    assert Workspace.find(None, {}).home == tmp_path / ".sealift"
