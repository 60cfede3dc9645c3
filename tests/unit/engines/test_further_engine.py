"""A further engine is one class and its place in the registry: the request, the lock, the plan, the
preflight and the launch know it then, and none of them knew its name before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airgap.engines import registry
from airgap.engines.interface import LaunchPlan, Meaning, Place, SystemLibrary
from airgap.errors import FormatError, UsageError
from airgap.format.manifest import Manifest
from airgap.format.request import ModelRequest, Request, WheelsRequest
from airgap.format.types import Serve, Target
from airgap.host import hardware, preflight
from airgap.host.images import launch, tool
from airgap.host.paths import HostPaths
from airgap.host.preflight import NotFit
from bundler import request as requests
from bundler.evidence import report
from bundler.lock import make_lock
from bundler.plan import suits
from bundler.workspace import Workspace
from tests.unit.evidence.test_evidence import MANIFEST, MODEL, TEMPLATE, WHEELS, sha
from tests.unit.fetch.wheel_maker import make_wheel
from tests.unit.host.parts import image_manifest, make_manifest
from tests.unit.request.test_facts import HOST

NAME = "third"
TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")


class Third:
    """Serves GGUF, and needs what no host has."""

    name = NAME
    formats = ("gguf",)
    plans_sequences = False
    health_path = "/up"

    def system_libraries(self, accelerator: str) -> tuple[SystemLibrary, ...]:
        return (SystemLibrary(f"libthird-{accelerator}.so.1", "libthird1"),)

    def cpu_features(self, accelerator: str, machine: str) -> tuple[str, ...]:
        return ("amx_tile",) if (accelerator, machine) == ("cpu", "x86_64") else ()

    def refuses(self, quantised: str, capability: int | None) -> str:
        return f"no {quantised}" if capability is None else ""

    def gives_template(self, serve: Serve) -> bool:
        return serve.enforce_eager

    def shared_memory(self, manifest: Manifest) -> int:
        return len(manifest.name) * 0

    def check(self, manifest: Manifest) -> None:
        manifest.model_to_serve()

    def plan(self, manifest: Manifest, paths: Place, port: int) -> LaunchPlan:
        argv = (str(paths.venv / "bin/third"), str(paths.model), manifest.name, str(port))
        return LaunchPlan(argv, {}, paths.run, self.health_path)

    def explain(self, log: str) -> Meaning | None:
        return Meaning(log, "") if log else None

    def contained(self, manifest: Manifest, paths: Place, socket: str) -> LaunchPlan:
        return LaunchPlan(("", socket, manifest.name), {}, paths.tmp, self.health_path)


@pytest.fixture
def third(monkeypatch: pytest.MonkeyPatch) -> Third:
    engine = Third()
    monkeypatch.setattr(registry, "_ENGINES", (*registry._ENGINES, engine))
    return engine


def toml(folder: Path, model: str = "m.gguf") -> Path:
    make_wheel(folder / "wheels", "tinywheel", "1.0")
    (folder / "m.gguf").write_bytes(b"GGUF" + bytes(20))
    path = folder / "tiny.toml"
    path.write_text(
        f'name = "tiny"\nversion = "1"\n[target]\npython = "3.11"\n'
        f'platform = "x86_64-manylinux_2_36"\naccelerator = "cpu"\n[[model]]\npath = "{model}"\n'
        f'[[wheels]]\nrequirements = ["tinywheel"]\nfind-links = ["wheels"]\n'
        f'[serve]\nengine = "{NAME}"\nname = "tiny"\n'
    )
    return path


@pytest.mark.usefixtures("third")
def test_it_is_requested_and_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    made = requests.read(toml(tmp_path))
    lock = make_lock(made, base=tmp_path, workspace=Workspace(tmp_path / "home"), now=1)
    assert lock.serve is not None and lock.serve.engine == NAME
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    other = replace(made, model=(ModelRequest(path="st"),))
    with pytest.raises(UsageError) as e:
        make_lock(other, base=tmp_path, workspace=Workspace(tmp_path / "home"), now=1)
    assert (e.value.id, e.value.what) == (
        "request.engine",
        "third cannot serve the model 'model'",
    )


def test_before_it_is_there_its_name_is_a_slip(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as e:
        requests.read(toml(tmp_path))
    assert e.value.id == "request.invalid" and "line 13" in e.value.what
    assert "'third' is not one of llama.cpp, vllm" in e.value.why


@pytest.mark.usefixtures("third")
def test_the_plan_judges_what_it_needs() -> None:
    request = Request(
        name="tiny",
        version="1",
        target=TARGET,
        model=(ModelRequest(path="m.gguf"),),
        wheels=(WheelsRequest(requirements=("x",)),),
        serve=Serve(engine=NAME, name="t"),
    )
    judged = {j.what: j for j in suits.judge(request, HOST)}
    assert not judged["library"].fits and "libthird1" in judged["library"].do
    assert not judged["processor"].fits and "amx_tile" in judged["processor"].text
    able = replace(HOST, cpu=replace(HOST.cpu, features=("avx2", "amx_tile")))
    judged = {j.what: j for j in suits.judge(request, able)}
    assert judged["processor"].fits


@pytest.mark.usefixtures("third")
def test_the_preflight_names_what_this_host_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = HostPaths(tmp_path / "host")
    manifest = make_manifest(paths, serve=Serve(engine=NAME, name="tiny", port=18999))
    cpu = replace(hardware.cpu(), features=("avx2",))
    monkeypatch.setattr(hardware, "cpu", lambda: cpu)
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, manifest, lambda _: None)
    assert [p.what for p in e.value.problems] == ["system library", "processor"]
    assert "libthird-cpu.so.1" in e.value.why and "third's wheels need amx_tile" in e.value.why
    assert not paths.deployments.exists()


@pytest.mark.usefixtures("third")
@pytest.mark.parametrize("given", [True, False])
def test_the_report_says_whether_it_is_started_with_the_template(given: bool) -> None:
    model = replace(MODEL, chat_template=sha(TEMPLATE))
    serve = Serve(engine=NAME, name="t", enforce_eager=given)
    manifest = replace(MANIFEST, artifacts=(model, WHEELS), serve=serve)
    said = report._use(manifest, model, sha(TEMPLATE))
    assert (said == report._STARTED) is given


@pytest.mark.usefixtures("third")
def test_it_is_contained_as_it_says(tmp_path: Path) -> None:
    """The command line of its container, its shared memory and its end."""
    paths = HostPaths(tmp_path / "host")
    manifest = image_manifest(make_manifest(paths, serve=Serve(engine=NAME, name="tiny")))
    place = paths.deployment("tiny", "1")
    engine = tool.Docker("/usr/bin/docker", paths)
    container = launch.Container("id", "n", "l")
    argv = launch.run_argv(engine, container, launch.of_engine(manifest, place))
    assert argv[-3:] == ("id", "/run/airgap/engine.sock", "tiny")
    assert not any(word.startswith("--shm-size") for word in argv)
    assert registry.engine_for(manifest).explain("why") == Meaning("why", "")
    assert not any("LD_PRELOAD" in word for word in argv)
    gpu = replace(manifest, target=replace(manifest.target, accelerator="cuda-13"))
    argv = launch.run_argv(engine, container, launch.of_engine(gpu, place))
    # Hooks that hand GPUs over run on the host, with what the image would have them load.
    assert {"LD_PRELOAD=", "LD_AUDIT=", launch.GPUS} <= set(argv)


def test_it_is_launched(tmp_path: Path, third: Third) -> None:
    paths = HostPaths(tmp_path / "host")
    manifest = make_manifest(paths, serve=Serve(engine=NAME, name="tiny"))
    place = paths.deployment("tiny", "1")
    engine = registry.engine_for(manifest)
    assert engine is third
    assert engine.plan(manifest, place, 7).argv == (
        str(place.venv / "bin/third"),
        str(place.model),
        "tiny",
        "7",
    )


def test_a_near_miss_is_said() -> None:
    with pytest.raises(FormatError) as e:
        registry.named("vlm")
    assert e.value.why.endswith("did you mean 'vllm'?")
