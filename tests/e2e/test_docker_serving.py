"""An engine from an image by the real docker daemon, as test_image_serving.py does it by podman."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import IntegrityError
from airgap.host import containers_fit, endpoint, locks, remove, system
from airgap.host.images import bring, launch, tool
from tests.caches import alone
from tests.e2e.dockerlab import docker, newer, only_docker, unpacked
from tests.e2e.hostlab import Parts, free_port, wait_for
from tests.e2e.image_world import Pulled
from tests.e2e.imagelab import ImageLab

# In the process of test_image_serving.py, which has the same image.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e/test_image_serving.py")]


@pytest.fixture(scope="module")
def served(
    parts: Parts, engine: Pulled, test_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ImageLab]:
    """A host that serves version 1 from the image."""
    if os.geteuid() != 0:
        pytest.skip("a docker daemon of one's own needs root")
    with alone(test_cache):
        programs = unpacked(test_cache)
    folder = tmp_path_factory.mktemp("docker")
    with only_docker(programs, folder):
        lab = ImageLab(folder / "host", parts, free_port(), pulled=engine)
        try:
            assert "4" in lab.install(lab.image_manifest("1")).smoke.answers[0]
            yield lab
        finally:
            lab.stop_all()
        assert lab.alive() == []


@pytest.mark.usefixtures("fake_gpu")
def test_gpu_reaches_a_container_of_a_newer_docker_by_cdi(
    parts: Parts, engine: Pulled, test_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Before the fixture below: one docker at a time."""
    if os.geteuid() != 0:
        pytest.skip("a docker daemon of one's own needs root")
    with alone(test_cache):
        programs = newer(test_cache)
    folder = tmp_path_factory.mktemp("newer")  # short: containerd's sockets lie in it
    (folder / "daemon.json").write_text('{"features": {"cdi": true}}')
    with only_docker(programs, folder, "--config-file", str(folder / "daemon.json")):
        lab = ImageLab(folder / "host", parts, free_port(), pulled=engine)
        manifest = lab.image_manifest("1")
        target = replace(manifest.target, accelerator="cuda-13")
        try:
            assert not list(containers_fit._too_old_for_cdi()) and system.has_cdi()
            lab.install(replace(manifest, target=target))
            (container,) = containers()
            (seen,) = json.loads(docker("inspect", container).stdout)
            device = os.stat(f"/proc/{seen['State']['Pid']}/root/dev/nvidia0")
            assert device.st_rdev == os.stat("/dev/null").st_rdev
        finally:
            lab.stop_all()
        assert lab.alive() == []


def containers() -> list[str]:
    return docker("ps", "--all", "--quiet", "--no-trunc").stdout.split()


def test_docker_is_what_serves_and_the_engine_is_shut_in(served: ImageLab) -> None:
    assert tool.choose(served.paths).name == "docker"
    (container,) = containers()
    (seen,) = json.loads(docker("inspect", container).stdout)
    pid = seen["State"]["Pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    assert {found[k] for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"
    assert set(found["Uid"].split()) == {str(launch.user())}
    devices = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]
    place = served.paths.deployment("smol", "1")
    writable = {m["Destination"] for m in seen["Mounts"] if m["RW"]}
    assert seen["HostConfig"]["ReadonlyRootfs"]
    assert writable == {launch.SOCKET_FOLDER, "/tmp", str(place.tmp), str(place.run / "home")}


def test_second_install_changes_nothing(served: ImageLab) -> None:
    before = containers()
    served.install(served.image_manifest("1"))
    assert containers() == before


def test_image_under_the_right_id_with_another_digest_is_refused(served: ImageLab) -> None:
    """What docker has is held to the approved manifest: not the id alone counts."""
    image = served.image_manifest("1").image_to_serve()
    engine = tool.choose(served.paths)
    assert bring.find(engine, image, served.paths) is not None
    seen = tool.Seen(bring.config_digest(served.paths, image), frozenset({"sha256:" + "0" * 64}))
    with pytest.raises(IntegrityError) as e:
        bring.check(seen, engine, image, served.paths)
    assert e.value.id == "image.digest"


def test_killed_engine_is_started_again_in_a_new_container(served: ImageLab) -> None:
    (before,) = containers()
    docker("kill", "--signal=KILL", before)
    place = served.paths.deployment("smol", "1")
    wait_for(lambda: (e := endpoint.live(place)) is not None and e.crashes >= 1 and e.state == "up")
    wait_for(lambda: len(containers()) == 1 and containers() != [before])


def test_killed_supervisor_takes_its_container_along_and_nothing_is_left(served: ImageLab) -> None:
    """The last test of this file. docker's storage is shared with others: the image stays."""
    wait_for(lambda: len(containers()) == 1)
    pid = locks.holder(served.paths.deployment("smol", "1").supervisor_lock)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: containers() == [], 30)
    with served.paths.exclusive("test"):
        remove.uninstall(served.paths, "smol", stop=True)
    assert docker("images", "--quiet").stdout.split() != []
