"""An engine from an image, by the real podman: shut in, one socket, gone when it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import IntegrityError, ServingError
from airgap.host import deployment, endpoint, locks, remove, system
from airgap.host.images import launch, tool
from airgap.store import Store
from tests.e2e.hostlab import Parts, free_port, wait_for
from tests.e2e.image_world import Pulled
from tests.e2e.imagelab import ImageLab, no_network


def make(folder: Path, parts: Parts, engine: Pulled) -> ImageLab:
    return ImageLab(folder / "host", parts, free_port(), pulled=engine)


@pytest.fixture(scope="module")
def cut_off(parts: Parts, engine: Pulled) -> Iterator[None]:
    """Everything below runs where nothing can be reached but loopback."""
    if os.geteuid() != 0:
        pytest.skip("taking the network away, and podman on this kernel, need root")
    with no_network():
        yield


@pytest.fixture(scope="module")
def served(
    cut_off: None,
    parts: Parts,
    engine: Pulled,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ImageLab]:
    """A host that serves version 1 from the image."""
    assert shutil.which("podman"), "install podman from Debian (the Makefile's TEST_PACKAGES)"
    lab = make(tmp_path_factory.mktemp("image"), parts, engine)
    try:
        answer = lab.install(lab.image_manifest("1")).smoke.answers[0]
        assert "4" in answer
        yield lab
    finally:
        lab.stop_all()
        lab.clean()
    assert lab.alive() == []


def engine_pid(lab: ImageLab, name: str = "smol") -> int:
    """The engine's process, as this host sees it."""
    label = tool.label_of(lab.paths.deployment(name, "1").folder)
    chosen = ("--filter", f"label={tool.LABEL}={label}")
    (container,) = lab.podman("ps", "--quiet", *chosen).out.split()
    return int(lab.podman("inspect", "--format", "{{.State.Pid}}", container).out)


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_engine_has_no_privileges_no_network_and_nothing_to_write(served: ImageLab) -> None:
    pid = engine_pid(served)
    found = status(pid)
    assert {found[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"
    assert set(found["Uid"].split()) == {str(launch.user())}
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/thread-self/ns/net")
    # Whoever removes it waits for nothing that it does.
    (container,) = served.containers()
    asked = served.podman("inspect", "--format", "{{.Config.StopTimeout}}", container)
    assert asked.out.strip() == "0"
    devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    mounts = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        _, _, _, _, target, options, *_ = line.split()
        mounts[target] = options.split(",")
    place = served.paths.deployment("smol", "1")
    assert "ro" in mounts["/"] and "ro" in mounts[str(place.model)]
    ours = {
        t for t, o in mounts.items() if "rw" in o and not t.startswith(("/proc", "/dev", "/sys"))
    }
    assert ours - {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv"} == {
        *(launch.SOCKET_FOLDER, "/tmp", str(place.tmp), str(place.run / "home")),
    }


def test_model_in_the_container_is_the_file_of_the_store(served: ImageLab) -> None:
    entry = served.image_manifest("1").model_to_serve().files[0]
    pid = engine_pid(served)
    model = served.paths.deployment("smol", "1").model / entry.path
    inside = os.stat(f"/proc/{pid}/root{model}")
    blob = os.stat(Store(served.paths.store).blob_path(entry.sha256))
    assert (inside.st_ino, inside.st_dev) == (blob.st_ino, blob.st_dev)


def test_host_of_these_tests_has_no_network(served: ImageLab) -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with socket.socket() as s, pytest.raises(OSError, match="unreachable"):
        s.connect(("192.0.2.1", 443))


def test_second_install_changes_nothing(served: ImageLab) -> None:
    before = served.containers()
    served.install(served.image_manifest("1"))
    assert served.containers() == before


def test_killed_engine_is_started_again_in_a_new_container(served: ImageLab) -> None:
    (before,) = served.containers()
    os.kill(engine_pid(served), signal.SIGKILL)
    place = served.paths.deployment("smol", "1")
    wait_for(lambda: (e := endpoint.live(place)) is not None and e.crashes >= 1 and e.state == "up")
    wait_for(lambda: len(served.containers()) == 1 and served.containers() != [before])


def test_killed_supervisor_takes_its_container_along(served: ImageLab) -> None:
    wait_for(lambda: len(served.containers()) == 1)
    place = served.paths.deployment("smol", "1")
    pid = locks.holder(place.supervisor_lock)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: served.containers() == [], 30)
    served.install(served.image_manifest("1"))
    assert len(served.containers()) == 1


def test_image_lost_by_the_container_engine_is_brought_back(served: ImageLab) -> None:
    served.stop_all()
    wait_for(lambda: served.containers() == [], 30)
    assert served.podman("rmi", "--all", "--force").code == 0
    served.install(served.image_manifest("1"))
    assert len(served.containers()) == 1


def test_image_torn_by_a_loss_of_power_in_its_pull_is_brought_afresh(served: ImageLab) -> None:
    """podman believes that it has the image: only our mark says that a pull came to no end."""
    served.stop_all()
    wait_for(lambda: served.containers() == [], 30)
    storage = served.paths.containers / "storage"
    (program,) = storage.glob("overlay/*/diff/opt/engine/llama-server")
    program.write_bytes(b"")
    image = served.image_manifest("1").image_to_serve()
    mark = served.paths.containers / "unsettled" / image.digest
    mark.touch()
    served.install(served.image_manifest("1"))
    assert len(served.containers()) == 1
    assert not mark.exists()


@pytest.mark.parametrize("damage", ["flipped", "cut"])
def test_layer_damaged_in_the_store_is_refused(
    cut_off: None,
    tmp_path: Path,
    parts: Parts,
    engine: Pulled,
    damage: str,
) -> None:
    lab = make(tmp_path, parts, engine)
    manifest = lab.image_manifest("1")
    layer = lab.layer
    middle = layer.stat().st_size // 2
    layer.chmod(0o644)
    with open(layer, "r+b") as f:
        f.seek(middle)
        byte = f.read(1)[0]
        if damage == "cut":
            f.truncate(middle)
        else:
            f.seek(middle)
            f.write(bytes([byte ^ 1]))
    try:
        with pytest.raises(IntegrityError) as e:
            lab.stage(manifest)
        assert (e.value.id, e.value.exit_code) == ("store.damaged", 3)
        assert deployment.read_record(lab.paths.deployment("smol", "1")) is None
        assert lab.podman("images", "--quiet").out == ""
    finally:
        lab.clean()


def test_gpu_reaches_the_container_by_cdi_and_nothing_else_does(
    served: ImageLab, fake_gpu: None
) -> None:
    target = replace(served.image_manifest("1").target, accelerator="cuda-13")
    manifest = served.image_manifest("1")
    serve = replace(manifest.serve, port=free_port())  # type: ignore[arg-type]
    assert system.has_cdi()
    served.install(replace(manifest, name="gpu", target=target, serve=serve))
    try:
        device = os.stat(f"/proc/{engine_pid(served, 'gpu')}/root/dev/nvidia0")
        assert (stat.S_ISCHR(device.st_mode), device.st_rdev) == (
            True,
            os.stat("/dev/null").st_rdev,
        )
        assert not Path(f"/proc/{engine_pid(served)}/root/dev/nvidia0").exists()
    finally:
        with served.paths.exclusive("test"):
            remove.uninstall(served.paths, "gpu", stop=True)


def test_gpu_that_no_cdi_file_describes_is_named_in_the_error(served: ImageLab) -> None:
    manifest = served.image_manifest("1")
    target = replace(manifest.target, accelerator="cuda-13")
    serve = replace(manifest.serve, port=free_port())  # type: ignore[arg-type]
    with pytest.raises(ServingError) as e:
        served.install(replace(manifest, name="gpu", target=target, serve=serve))
    assert "nvidia.com/gpu" in e.value.why
    with served.paths.exclusive("test"):
        remove.uninstall(served.paths, "gpu", stop=True)


def test_pull_leaves_no_temporary_copy_of_a_layer(served: ImageLab) -> None:
    folder = served.paths.containers / "tmp"
    assert list(folder.iterdir()) == []


def test_image_that_nothing_needs_leaves_the_container_engine(served: ImageLab) -> None:
    """The last test of this file: nothing is served after it."""
    (before,) = set(served.podman("images", "--quiet", "--no-trunc").out.split())
    with served.paths.exclusive("test"):
        remove.gc(served.paths, lambda _manifest, _digest: None)
        assert served.podman("images", "--quiet", "--no-trunc").out.split() == [before]
        remove.uninstall(served.paths, "smol", stop=True)
    assert served.podman("images", "--quiet").out == ""
    assert served.containers() == []
