"""LoRA adapters: from a folder and from the Hub, for the right base, plain, in safetensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.errors import SealiftError, SourceError, UsageError
from airgap.events import Event, Warn, silent
from airgap.format.artifacts import LockedAdapter
from airgap.format.request import AdapterRequest, ModelRequest, Request
from airgap.format.types import Target
from airgap.store import Store
from bundler.demo.hub import LocalHub
from bundler.fetch.locked import fetch_locked
from bundler.fetch.models import lock_adapter
from bundler.lock import make_lock
from bundler.workspace import Workspace
from tests.unit.fetch.hubs import WEIGHTS, adapter, model, write

BASE = ModelRequest(repo="org/base")
OTHER = ModelRequest(repo="org/other", name="other")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with LocalHub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        running.repository("org/base").add(model(tmp_path / "base"))
        running.repository("me/lora").add(adapter(tmp_path / "lora"))
        yield running


def lock(
    folder: Path,
    store: Store,
    models: tuple[ModelRequest, ...] = (BASE,),
    events: list[Event] | None = None,
    **more: object,
) -> LockedAdapter:
    asked = {"name": "ad1", "path": str(folder), **more}
    request = AdapterRequest(**asked)  # type: ignore[arg-type]
    sink = silent if events is None else events.append
    return lock_adapter(request, models, Path("/"), store, sink)


def refused(folder: Path, store: Store, **more: object) -> SealiftError:
    with pytest.raises(SealiftError) as caught:
        lock(folder, store, **more)  # type: ignore[arg-type]
    return caught.value


def test_an_adapter_of_the_hub_with_its_base(hub: LocalHub, tmp_path: Path) -> None:
    request = Request(
        name="tiny",
        version="1",
        target=Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu"),
        model=(BASE,),
        adapter=(AdapterRequest(name="ad1", repo="me/lora"),),
    )
    workspace = Workspace(tmp_path / "home")
    made = make_lock(request, base=Path("/"), workspace=workspace, now=1)
    found = made.artifacts[0]
    assert isinstance(found, LockedAdapter)
    assert (found.base, found.rank, found.publisher) == ("model", 8, "me")
    assert found.licence == "Apache-2.0"
    assert [f.path.name for f in found.files] == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    fetch_locked(made, workspace)
    assert workspace.store.blob_path(found.files[2].sha256).read_bytes() == WEIGHTS


def test_an_adapter_in_a_folder(tmp_path: Path, store: Store) -> None:
    folder = adapter(tmp_path / "lora", rank_pattern={"q_proj": 16})
    found = lock(folder, store, exclude=("*.pt",), label="mine")
    assert (found.source, found.base, found.rank) == ("mine", "model", 16)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, store: Store) -> None:
    folder = adapter(tmp_path / "lora", base="org/somebody-else")
    error = refused(folder, store)
    assert (error.id, error.exit_code) == ("source.adapter-base", 6)
    assert "somebody-else" in error.why
    assert "org/base" in error.why


def test_a_base_that_the_request_names_is_believed_and_the_difference_told(
    tmp_path: Path, store: Store
) -> None:
    folder = adapter(tmp_path / "lora", base="org/somebody-else")
    events: list[Event] = []
    assert lock(folder, store, (BASE,), events, base="model").base == "model"
    assert [e.id for e in events if isinstance(e, Warn)] == ["source.adapter-base"]


def test_of_two_models_one_must_be_named(tmp_path: Path, store: Store) -> None:
    folder = adapter(tmp_path / "lora")
    with pytest.raises(UsageError):
        lock(folder, store, (BASE, OTHER))
    assert lock(folder, store, (BASE, OTHER), base="model").base == "model"
    with pytest.raises(UsageError):
        lock(folder, store, (BASE, OTHER), base="third")


def test_a_base_in_a_folder_is_known_by_its_label(tmp_path: Path, store: Store) -> None:
    folder = adapter(tmp_path / "lora")
    local = ModelRequest(path="base", label="org/base")
    assert lock(folder, store, (local,)).base == "model"
    error = refused(folder, store, models=(ModelRequest(path="base"),))
    assert error.id == "source.adapter-base"


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"r": 0},
        {"r": 1024},
        {"r": "8"},
        {"r": True},
        {"rank_pattern": {"q_proj": -1}},
        {"base_model_name_or_path": None},
    ],
)
def test_what_the_engine_would_refuse_at_start_is_refused_here(
    tmp_path: Path, store: Store, config: dict[str, object]
) -> None:
    error = refused(adapter(tmp_path / "lora", **{"base": "org/base", **config}), store)  # type: ignore[arg-type]
    assert (error.id, error.exit_code) == ("source.adapter", 6)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"peft_type": "LORA", "peft_type": "LORA"}'])
def test_a_configuration_that_cannot_be_read_is_refused(
    tmp_path: Path, store: Store, text: str
) -> None:
    folder = write(adapter(tmp_path / "lora"), {"adapter_config.json": text})
    assert refused(folder, store).id == "source.adapter"


def test_pickled_adapters_are_refused_before_anything_is_taken_in(
    tmp_path: Path, store: Store
) -> None:
    folder = adapter(tmp_path / "lora")
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(SourceError, match=r"source\.no-weights"):
        lock(folder, store)
    assert not store.blobs.exists()


def test_a_model_is_no_adapter(tmp_path: Path, store: Store) -> None:
    error = refused(model(tmp_path / "m"), store)
    assert error.id == "source.adapter"
    assert "adapter_config.json" in error.why
