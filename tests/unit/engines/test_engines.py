"""Engines: what is launched, with which environment, and what this version refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airgap.engines import registry
from airgap.engines.llama_cpp import LlamaCpp, find_program, model_file
from airgap.engines.registry import engine_for
from airgap.errors import HostError
from airgap.format.types import Serve, Target
from airgap.host.paths import HostPaths
from tests.unit.host.parts import PYTHON, image_manifest, make_manifest


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path)


def put_program(venv: Path, package: str = "engine/bin") -> Path:
    program = venv / "lib/python3.11/site-packages" / package / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_launch_is_offline_on_loopback_with_an_environment_from_nothing(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_PRELOAD_OF_OURS", "x")
    manifest = make_manifest(paths, serve=Serve(engine="llama.cpp", name="t", max_model_len=512))
    place = paths.deployment("tiny", "1")
    program = put_program(place.venv)
    plan = LlamaCpp().plan(manifest, place, 4321)
    argv = list(plan.argv)
    assert argv[0] == str(program)
    for flag, value in {
        "--model": str(place.model / "m.gguf"),
        "--alias": "t",
        "--host": "127.0.0.1",
        "--port": "4321",
        "--ctx-size": "512",
        "--device": "none",
    }.items():
        assert argv[argv.index(flag) + 1] == value
    assert "--offline" in argv
    assert "LD_PRELOAD_OF_OURS" not in plan.env
    assert plan.env["HF_HUB_OFFLINE"] == plan.env["DO_NOT_TRACK"] == "1"
    for key in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
        assert Path(plan.env[key]).is_relative_to(place.folder)
    assert plan.cwd.is_relative_to(place.folder)


def test_gpu_is_left_on_when_the_target_names_one(paths: HostPaths) -> None:
    target = Target(python=PYTHON, platform="x86_64-manylinux_2_17", accelerator="cuda-13")
    place = paths.deployment("tiny", "1")
    put_program(place.venv)
    assert "--device" not in LlamaCpp().plan(make_manifest(paths, target=target), place, 1).argv


def test_model_in_parts_is_started_on_the_first(paths: HostPaths) -> None:
    parts = tuple(f"m-{n:05}-of-00003.gguf" for n in (1, 2, 3))
    model = make_manifest(paths, models=(*parts, "mmproj-m.gguf")).model_to_serve()
    assert model_file(model).name == "m-00001-of-00003.gguf"


@pytest.mark.parametrize("models", [("a.gguf", "b.gguf"), ("readme.txt",)])
def test_model_without_one_file_to_start_on_is_refused(
    paths: HostPaths, models: tuple[str, ...]
) -> None:
    with pytest.raises(HostError) as e:
        LlamaCpp().check(make_manifest(paths, models=models))
    assert e.value.id == "host.model-unfit"


def test_wheels_without_the_program_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HostError) as e:
        find_program(tmp_path)
    assert e.value.id == "host.engine-missing"


def test_program_that_is_not_executable_is_refused(tmp_path: Path) -> None:
    os.chmod(put_program(tmp_path), 0o644)
    with pytest.raises(HostError):
        find_program(tmp_path)


def test_two_wheels_with_the_program_are_refused(tmp_path: Path) -> None:
    put_program(tmp_path, "one/bin")
    put_program(tmp_path, "two")
    with pytest.raises(HostError) as e:
        find_program(tmp_path)
    assert "several" in e.value.why


def test_engine_in_an_image_listens_on_a_socket_and_sees_the_model_where_it_is(
    paths: HostPaths,
) -> None:
    manifest = image_manifest(make_manifest(paths))
    place = paths.deployment("tiny", "1")
    plan = engine_for(manifest).contained(manifest, place, "/run/airgap/engine.sock")
    assert plan.argv[0] == ""
    assert plan.argv[plan.argv.index("--host") + 1] == "/run/airgap/engine.sock"
    assert str(place.model / "m.gguf") in plan.argv
    assert "--port" not in plan.argv


def test_engine_that_this_version_does_not_serve_is_refused(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_ENGINES", (LlamaCpp(),))
    with pytest.raises(HostError) as e:
        engine_for(make_manifest(paths, serve=Serve(engine="vllm", name="t")))
    assert e.value.id == "host.engine-unknown"


NOISE = "0.00.005.348 I srv  init: The UI is disabled"
GAVE_UP = "supervisor: the engine ended with exit status 1; start again: True"
KILLED = "supervisor: the engine was ended by SIGKILL; start again: True"
BAD = "0.00.009.469 E gguf_init_from_reader: bad GGUF version: 0"


@pytest.mark.parametrize(
    ("log", "lost"),
    [
        ([NOISE, GAVE_UP], True),
        ([GAVE_UP], True),
        ([NOISE, BAD, GAVE_UP], False),
        ([NOISE, "error while handling argument", GAVE_UP], False),
        ([BAD, GAVE_UP, NOISE, GAVE_UP], True),  # an earlier start's reason is not this one's
        ([NOISE, KILLED], False),  # that it was killed is the reason
        ([NOISE], False),
    ],
)
def test_llama_server_that_ended_before_it_said_why(log: list[str], lost: bool) -> None:
    meaning = LlamaCpp().explain("\n".join(log))
    assert (meaning is not None and "wrote no reason" in meaning.why) == lost
