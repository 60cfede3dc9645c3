"""Preflight: every reason at once, nothing written, no connection tried."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from airgap import limits
from airgap.engines.llama_cpp import LlamaCpp
from airgap.engines.vllm import Vllm
from airgap.errors import PolicyError
from airgap.events import Event, Line, Warn
from airgap.format.facts import Gpu, Nvidia, Runtime
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.types import Gateway, Serve, Target
from airgap.host import (
    containers_fit,
    hardware,
    interpreter,
    nvidia,
    preflight,
    probe,
    stage,
    system,
)
from airgap.host.paths import HostPaths
from airgap.host.preflight import NotFit, needs
from airgap.store import Store
from tests.unit.host.parts import (
    PYTHON,
    UV,
    an_image,
    digest_of,
    image_manifest,
    make_manifest,
    with_serve,
)


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path / "host")


def test_all_problems_are_named_at_once(paths: HostPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target(python="3.99", platform="aarch64-manylinux_2_90", accelerator="cuda-13")
    manifest = make_manifest(paths, target=target)
    monkeypatch.setattr(probe, "machine", lambda: "x86_64")
    monkeypatch.setattr(probe, "glibc", lambda: (2, 36))
    monkeypatch.setattr(probe, "has_library", lambda _: False)
    monkeypatch.setattr(nvidia, "measure", lambda: None)
    monkeypatch.setattr(probe, "port_is_free", lambda _: False)
    monkeypatch.setattr(probe, "space", lambda p: probe.Space(p, 1, 10))
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, manifest, lambda _: None)
    assert (e.value.id, e.value.exit_code) == ("host.not-fit", 7)
    found = [p.what for p in e.value.problems]
    assert found == ["disk", "system library", "machine", "Python", "C library", "GPU", "port"]
    for problem in e.value.problems:
        assert problem.why in e.value.why and problem.do in e.value.do
    assert "libgomp1" in e.value.do
    assert not paths.deployments.exists()


def test_engine_that_cannot_be_served_is_one_of_the_problems(paths: HostPaths) -> None:
    manifest = make_manifest(paths, serve=Serve(engine="vllm", name="t", port=18998))
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, manifest, lambda _: None)
    assert "vLLM cannot serve the model 'model'" in e.value.why


def test_this_host_fits_and_says_with_what(paths: HostPaths) -> None:
    events: list[Event] = []
    preflight.preflight(paths, make_manifest(paths), events.append)
    lines = [e for e in events if isinstance(e, Line)]
    assert len(lines) == 1 and "bytes free" in lines[0].text and "default route" in lines[0].text


def test_import_is_counted_to_the_byte_and_only_what_is_missing(paths: HostPaths) -> None:
    manifest = make_manifest(paths)
    packed = sum(f.size for f in manifest.wheels_to_serve().files)
    unpacked = packed * limits.WHEEL_UNPACK_FACTOR + limits.HOST_RESERVE_BYTES
    assert needs(paths, manifest) == preflight.Needs(0, unpacked)
    model = manifest.model_to_serve().files[0]
    os.unlink(Store(paths.store).blob_path(model.sha256))
    assert needs(paths, manifest) == preflight.Needs(model.size, unpacked)


def test_what_is_staged_needs_no_more_space(paths: HostPaths) -> None:
    manifest = make_manifest(paths)
    stage.stage(paths, manifest, digest_of(manifest), uv=UV)
    assert needs(paths, manifest) == preflight.Needs(0, 0)


@pytest.mark.parametrize(("free", "fits"), [(9, False), (10, True)])
def test_disk_is_judged_to_the_byte_per_file_system(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch, free: int, fits: bool
) -> None:
    monkeypatch.setattr(probe, "space", lambda p: probe.Space(p, 1, free))
    manifest = make_manifest(paths)
    found = [
        p.what
        for p in preflight.find_problems(paths, manifest, preflight.Needs(4, 6))
        if p.what == "disk"
    ]
    assert found == ([] if fits else ["disk"])


def test_two_file_systems_are_judged_apart(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(path: Path) -> probe.Space:
        return probe.Space(path, 1 if path == paths.store else 2, 6)

    monkeypatch.setattr(probe, "space", two)
    wanted = preflight.Needs(4, 6)
    assert not any(
        p.what == "disk" for p in preflight.find_problems(paths, make_manifest(paths), wanted)
    )


def test_taken_port_is_named(paths: HostPaths) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        manifest = with_serve(make_manifest(paths), port=s.getsockname()[1])
        with pytest.raises(NotFit) as e:
            preflight.preflight(paths, manifest, lambda _: None)
    assert [p.what for p in e.value.problems] == ["port"]


def test_little_shared_memory_is_a_problem(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker and podman give 64 MB unless told otherwise."""
    wanted = probe.space(Path("/dev/shm")).free + 2**40
    monkeypatch.setattr(LlamaCpp, "shared_memory", lambda *_: wanted)
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, make_manifest(paths), lambda _: None)
    assert [p.what for p in e.value.problems] == ["shared memory"]


def test_code_for_another_processor_is_a_problem(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A virtual machine with a plain processor has no AVX2, whatever lies below it."""
    plain = replace(hardware.cpu(), features=("sha_ni",))
    monkeypatch.setattr(hardware, "cpu", lambda: plain)
    monkeypatch.setattr(probe, "machine", lambda: "x86_64")
    found = list(preflight._processor(Vllm(), "cpu"))
    assert [p.what for p in found] == ["processor"] and "avx2" in found[0].why
    assert list(preflight._processor(Vllm(), "cuda-13")) == []
    monkeypatch.setattr(hardware, "cpu", lambda: replace(plain, features=("avx2",)))
    assert list(preflight._processor(Vllm(), "cpu")) == []


def test_little_memory_is_a_warning(paths: HostPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "memory_available", lambda: 3)
    events: list[Event] = []
    preflight.preflight(paths, make_manifest(paths), events.append)
    assert [e.id for e in events if isinstance(e, Warn)] == ["host.memory"]


def test_clock_behind_the_hosts_own_files_is_a_warning(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "newest_file", lambda: 2**40)
    events: list[Event] = []
    preflight.preflight(paths, make_manifest(paths), events.append)
    assert [e.id for e in events if isinstance(e, Warn)] == ["host.clock"]


def test_image_on_a_gpu_needs_cdi_and_selinux_is_told(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(python=PYTHON, platform="x86_64-manylinux_2_17", accelerator="cuda-13")
    manifest = image_manifest(make_manifest(paths, target=target))
    monkeypatch.setattr(nvidia, "measure", lambda: None)
    monkeypatch.setattr(system, "runtimes", lambda: ())
    monkeypatch.setattr(system, "has_cdi", lambda: False)
    monkeypatch.setattr(system, "selinux", lambda: "enforcing")
    events: list[Event] = []
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, manifest, events.append)
    assert [p.what for p in e.value.problems] == ["container engine", "CDI", "GPU"]
    assert "nvidia-ctk cdi generate" in e.value.do
    (warned,) = (e for e in events if isinstance(e, Warn))
    assert warned.id == "host.selinux" and "restorecon" in warned.text


def with_gateway_image(manifest: Manifest) -> Manifest:
    gateway = replace(an_image(), name="gateway")
    artifacts = sorted((gateway, *manifest.artifacts), key=lambda a: a.name)
    assert manifest.serve is not None
    inside = "image" if manifest.serve.runtime == "image" else None
    gate = Gateway(image="gateway", port=18998)
    serve = replace(manifest.serve, image=inside, gateway=gate)
    return replace(manifest, artifacts=tuple(artifacts), serve=serve)


def test_gateway_from_an_image_needs_a_container_engine_and_no_cdi(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine runs from wheels on a GPU: the GPU is handed to no container."""
    target = Target(python=PYTHON, platform="x86_64-manylinux_2_17", accelerator="cuda-13")
    manifest = with_gateway_image(make_manifest(paths, target=target))
    monkeypatch.setattr(nvidia, "measure", lambda: None)
    monkeypatch.setattr(system, "runtimes", lambda: ())
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, manifest, [].append)
    assert [p.what for p in e.value.problems] == ["container engine", "GPU"]


def test_images_alone_need_no_python_and_the_room_of_both(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target(python="3.99", platform="x86_64-manylinux_2_99", accelerator="cpu")
    plain = make_manifest(paths, target=target)
    manifest = with_gateway_image(image_manifest(plain))
    monkeypatch.setattr(system, "runtimes", lambda: (Runtime(name="podman", version="5.0"),))
    one = preflight.needs(paths, image_manifest(plain)).image_bytes
    assert preflight.needs(paths, manifest).image_bytes == one  # the same image, counted once
    found = list(preflight.find_problems(paths, manifest, preflight.needs(paths, manifest)))
    assert found == []
    elsewhere = Target(python="3.99", platform="aarch64-manylinux_2_17", accelerator="cpu")
    found = list(
        preflight.find_problems(paths, replace(manifest, target=elsewhere), preflight.Needs(0, 0))
    )
    assert [p.what for p in found] == ["machine"]
    wheels = with_serve(manifest, runtime="venv", image=None)
    found = list(preflight.find_problems(paths, wheels, preflight.needs(paths, wheels)))
    assert {p.what for p in found} >= {"Python"}


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ((("docker", "20.10.24"),), ["docker 20.10.24 gives containers no GPUs by CDI"]),
        ((("docker", "26.1.5"),), []),
        ((("podman", "3.0.1"), ("docker", "26.1.5")), ["podman 3.0.1 gives containers no GPUs"]),
        ((("podman", "4.3.1"), ("docker", "20.10.24")), []),
        ((("crun", "1.8"),), []),
    ],
)
def test_the_container_engine_that_would_be_taken_must_know_cdi(
    monkeypatch: pytest.MonkeyPatch, here: tuple[tuple[str, str], ...], said: list[str]
) -> None:
    found = tuple(Runtime(name=name, version=version) for name, version in here)
    monkeypatch.setattr(system, "runtimes", lambda: found)
    problems = list(containers_fit._too_old_for_cdi())
    assert len(problems) == len(said)
    assert all(w in p.why for w, p in zip(said, problems, strict=True))


def test_library_that_the_loader_lacks_is_missing() -> None:
    assert probe.has_library("libc.so.6")
    assert not probe.has_library("libnobodyhasthis.so.9")


def test_glibc_and_memory_are_read() -> None:
    libc = probe.glibc()
    assert libc is not None and libc >= (2, 17)
    assert (probe.memory_available() or 0) > 0


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    found = probe.space(tmp_path / "a" / "b")
    assert found.folder == tmp_path and found.free > 0


def test_our_own_python_is_found() -> None:
    assert interpreter.find(PYTHON).exists()


H100 = Gpu(model="NVIDIA H100", memory=80 * limits.GIB, compute_capability="9.0")
V100 = Gpu(model="Tesla V100", memory=32 * limits.GIB, compute_capability="7.0")
CUDA = Target(python=PYTHON, platform="x86_64-manylinux_2_17", accelerator="cuda-13")


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (Nvidia(driver="580.65", cuda="13.0", gpus=(H100,)), []),
        (Nvidia(driver="550.54", cuda="12.4", gpus=(H100,)), ["driver"]),
        (Nvidia(driver="580.65", cuda="13.0", gpus=(replace(H100, memory=3),)), ["GPU memory"]),
        (Nvidia(driver="580.65", cuda="13.0", gpus=(V100,)), ["GPU"]),
        (Nvidia(driver="580.65", cuda="13.0", gpus=(V100, H100)), []),
        (Nvidia(driver="580.65", cuda="13.0", gpus=()), ["GPU"]),
        (None, ["GPU"]),
    ],
)
def test_driver_and_gpus_are_judged(
    paths: HostPaths,
    monkeypatch: pytest.MonkeyPatch,
    driver: Nvidia | None,
    expected: list[str],
) -> None:
    monkeypatch.setattr(nvidia, "measure", lambda: driver)
    manifest = make_manifest(paths, target=CUDA)
    found = preflight.find_problems(paths, manifest, needs(paths, manifest))
    assert [p.what for p in found] == expected


def forbid_network(paths: HostPaths) -> None:
    paths.policy.parent.mkdir(parents=True, exist_ok=True)
    paths.policy.write_bytes(Policy(refuse_network=True).to_bytes())


def test_a_policy_may_refuse_a_host_with_a_way_out(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(paths)
    forbid_network(paths)
    monkeypatch.setattr(probe, "default_routes", lambda: ("eth0",))
    monkeypatch.setattr(system, "has_resolver", lambda: True)
    with pytest.raises(PolicyError) as e:
        preflight.preflight(paths, manifest, lambda _: None)
    assert (e.value.id, e.value.exit_code) == ("policy.network", 5)
    assert "eth0" in e.value.why and "name server" in e.value.why
    assert not paths.deployments.exists()
    monkeypatch.setattr(probe, "default_routes", lambda: ())
    monkeypatch.setattr(system, "has_resolver", lambda: False)
    preflight.preflight(paths, manifest, lambda _: None)


def test_a_way_out_is_one_of_several_problems(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_network(paths)
    monkeypatch.setattr(probe, "default_routes", lambda: ("eth0",))
    with pytest.raises(NotFit) as e:
        preflight.preflight(paths, make_manifest(paths, target=CUDA), lambda _: None)
    assert [p.what for p in e.value.problems] == ["network", "GPU"]


def test_every_file_system_is_told_apart_to_the_byte(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def three(path: Path) -> probe.Space:
        devices = {paths.store: 1, paths.deployments: 1}
        return probe.Space(path, devices.get(path, 2), 100)

    monkeypatch.setattr(probe, "space", three)
    shares = preflight.per_mount(paths, preflight.Needs(4, 6, 90))
    assert [s.needs for s in shares] == [10, 90]
