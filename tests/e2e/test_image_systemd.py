"""An engine from an image on a Debian 13 with systemd, podman and no network: by our units, then by
podman's own Quadlet in their place; each survives kill -9 of the engine and a reboot.

One host, in this order. Two minutes, so it runs when it is asked for: `make test-long`, or
SEALIFT_TEST_LONG=1.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.container import Container
from tests.e2e.image_world import engine_image
from tests.e2e.test_image_journey import NAME, REPOSITORY, bundle, request
from tests.e2e.world import Connected
from tests.unit.images.maker import push

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.environ.get("SEALIFT_TEST_LONG") != "1",
        reason="two minutes; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
    ),
]
UNIT = f"sealift-{NAME}-container"
# Of a process by its name: minbase has no pgrep.
PIDS = "grep -l llama-server /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3"


@pytest.fixture(scope="module")
def host(
    connected: Connected,
    docker_registry: str,
    podman_rootfs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    """It trusts the officers, and sees a bundle with an image."""
    made = engine_image(connected.parts.wheel, tmp_path_factory.mktemp("engine"), "1")
    push(made, docker_registry, REPOSITORY)
    medium = bundle(connected, "1", ("build", request(connected, docker_registry, "1")))
    mounts = {connected.folder / "kit": "/kit", medium.parent: "/media"}
    # podman's storage is an overlay, which must not lie on the container's own.
    state = tmp_path_factory.mktemp("state")
    state.chmod(0o755)  # the daemons' user passes through
    folder = tmp_path_factory.mktemp("container")
    container = Container(podman_rootfs, folder, mounts, state=state)
    try:
        container.begin()
        container.install_kit()
        sha256 = hashlib.sha256((connected.folder / "kit/root.json").read_bytes()).hexdigest()
        container.airgap("trust", "add", "/kit/root.json", "--sha256", sha256)
        yield container
    finally:
        container.close()
        for mount in _mounts_below(state):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(state, ignore_errors=True)


def _mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [m for m in (line.split()[1] for line in lines) if m.startswith(f"{folder}/")]


def engines(host: Container) -> list[str]:
    return host.sh(PIDS, expect=None).out.split()


def answers(host: Container, port: int) -> None:
    host.until(lambda: "4" in host.ask(port), 90)


def survives(host: Container, port: int) -> None:
    """It answers, again after kill -9 of the engine, and again after a reboot."""
    answers(host, port)
    (engine,) = engines(host)
    status = host.sh(f"cat /proc/{engine}/status; cat /proc/{engine}/net/route").out
    assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"CapEff:\s0{16}", status)
    assert re.search(r"Uid:\s65533", status)
    host.sh(f"kill -9 {engine}")
    host.until(lambda: engines(host) not in ([], [engine]), 60)
    answers(host, port)
    host.reboot()
    answers(host, port)
    assert len(engines(host)) == 1


def test_engine_from_an_image_serves_under_systemd_and_comes_back(
    host: Container, connected: Connected
) -> None:
    host.airgap("install", f"/media/{NAME}-1")
    shown = host.sh("systemctl --no-legend list-units 'sealift-*'").out
    assert f"sealift-{NAME}-engine-1.service" in shown and f"sealift-{NAME}-front" in shown
    survives(host, connected.port)
    assert host.serves("1")


def test_quadlet_service_serves_in_its_place_and_comes_back(
    host: Container, connected: Connected
) -> None:
    shown = host.sh(f"/opt/airgap/airgap service show {NAME} --quadlet").out
    host.airgap("stop", NAME)
    host.sh(f"systemctl disable sealift-{NAME}.service")
    for filename, text in quadlet_files(shown):
        folder = "/etc/systemd/system"
        if filename.endswith(".container"):
            folder = "/etc/containers/systemd"
        host.put(f"{folder}/{filename}", text)
    if host.sh("stat -fc %T /sys/fs/cgroup").out.strip() != "cgroup2fs":
        # Quadlet asks for --cgroups=split, which podman can do on cgroup v2 only.
        own = f"/etc/containers/systemd/{UNIT}.container.d/cgroups.conf"
        host.put(own, "[Container]\nCgroupsMode=no-conmon\n")
    host.sh("systemctl daemon-reload")
    assert engines(host) == []
    host.sh(f"systemctl start {UNIT}.service && systemctl enable --now {UNIT}-port.socket")
    survives(host, connected.port)
    active = host.sh("systemctl --no-legend list-units 'sealift-*'").out
    assert "engine-1" not in active and "front" not in active, active
    assert host.sh(f"systemctl is-active {UNIT}.service").out == "active\n"


def quadlet_files(shown: str) -> Iterator[tuple[str, str]]:
    """What `airgap service show --quadlet` printed: file name and text."""
    parts = re.split(r"(?m)^# (\S+\.(?:container|socket|service))\n", shown)[1:]
    yield from zip(parts[::2], parts[1::2], strict=True)
