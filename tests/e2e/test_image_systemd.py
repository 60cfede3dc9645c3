"""An engine from an image on a Debian 13 with systemd, podman and no network: by our units, with a
gateway from an image as well, then by podman's own Quadlet in their place; each survives kill -9 of
the engine and a reboot.

One host, in this order. Four minutes, so it runs when it is asked for: `make test-long`, or
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
from tests.e2e.image_world import engine_image, relabelled
from tests.e2e.litellm_image import push_litellm
from tests.e2e.test_image_journey import NAME, REPOSITORY, bundle, request
from tests.e2e.world import Connected
from tests.unit.images.maker import push

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.environ.get("SEALIFT_TEST_LONG") != "1",
        reason="four minutes; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
    ),
]
UNIT = f"sealift-{NAME}-container"
# Of a process by its name: minbase has no pgrep.
PIDS = "grep -l {} /proc/[0-9]*/comm 2>/dev/null | cut -d/ -f3"
DOOR = 8443
GATEWAY = f"""
[serve.gateway]
image = "gateway"
port = {DOOR}
"""


@pytest.fixture(scope="module")
def host(
    connected: Connected,
    litellm: tuple[Path, ...],
    docker_registry: str,
    podman_rootfs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    """It trusts the officers, and sees a bundle with an image."""
    made = engine_image(connected.parts.wheel, tmp_path_factory.mktemp("engine"), "1")
    relabelled(made, "1", "2")
    push(made, docker_registry, REPOSITORY)
    medium = bundle(connected, "1", ("build", request(connected, docker_registry, "1")))
    gateway = push_litellm(litellm[0].parent, docker_registry, tmp_path_factory.mktemp("litellm"))
    second = Path(request(connected, docker_registry, "2"))
    table = f'[[image]]\nname = "gateway"\nreference = "{gateway}"\nplatform = "linux/amd64"\n'
    text = second.read_text().replace("[serve]", f'{table}[serve]\nimage = "engine"')
    second.write_text(text + GATEWAY)
    bundle(connected, "2", ("build", str(second)))
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


def engines(host: Container, comm: str = "llama-server") -> list[str]:
    return host.sh(PIDS.format(comm), expect=None).out.split()


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


# Asks at the door what 2+2 is, and prints status and answer; nothing when nobody listens.
ASK = """
import json, ssl, sys, urllib.error, urllib.request as u
url, key = sys.argv[1:]
fields = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
question = {"role": "user", "content": "What is 2+2? Answer with a number."}
body = {"model": "smol", "messages": [question], "max_tokens": 8, "temperature": 0}
context = ssl.create_default_context(cafile="/var/lib/airgap/tls/cert.pem")
try:
    answer = u.urlopen(u.Request(url, json.dumps(body).encode(), fields), None, 60, context=context)
except urllib.error.HTTPError as e:
    answer = e
except urllib.error.URLError:
    sys.exit()
print(answer.status, json.loads(answer.read()).get("choices"))
"""


def through_the_door(host: Container, key: str) -> str:
    url = f"https://localhost:{DOOR}/v1/chat/completions"
    return host.sh(f"python3 /root/ask.py {url} {key}", expect=None).out


def test_gateway_from_an_image_serves_under_systemd_and_comes_back(host: Container) -> None:
    """No wheel, no environment; the door runs as a user that asks no container engine."""
    host.airgap("install", f"/media/{NAME}-2")
    said = host.sh("/opt/airgap/airgap keys add tests").out
    key = re.findall(r"sk-airgap-\S+", said)[0]
    host.put("/root/ask.py", ASK)
    assert re.match(r"200 .*4", through_the_door(host, key))
    assert through_the_door(host, "sk-airgap-wrong").startswith("401 ")
    found = "-path /var/lib/airgap/containers -prune -o -name '*.whl' -print -o -name venv -print"
    assert host.sh(f"find /var/lib/airgap {found}").out == ""
    shown = host.sh("systemctl show -p User sealift-*-door.service sealift-*-gateway-2.service").out
    assert sorted(shown.split()) == ["User=root", "User=sealift-door"]
    (gateway,) = engines(host, "litellm")
    status = host.sh(f"cat /proc/{gateway}/status /proc/{gateway}/net/route").out
    assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"CapEff:\s0{16}", status)
    assert re.search(r"Uid:\s65533", status)
    host.sh(f"kill -9 {gateway}")
    host.until(lambda: engines(host, "litellm") not in ([], [gateway]), 60)
    host.until(lambda: through_the_door(host, key).startswith("200 "), 120)
    host.reboot()
    host.until(lambda: through_the_door(host, key).startswith("200 "), 180)
    host.airgap("rollback", NAME)
    assert host.serves("1") and through_the_door(host, key) == ""


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
    proxy = host.sh(f"systemctl show -p MainPID --value {UNIT}-port.service").out.strip()
    proxied = host.sh(f"cat /proc/{proxy}/status").out
    assert re.search(r"Uid:\s65533\s65533\s65533", proxied) and re.search(
        r"CapEff:\s0{16}", proxied
    )
    active = host.sh("systemctl --no-legend list-units 'sealift-*'").out
    assert "engine-1" not in active and "front" not in active, active
    assert host.sh(f"systemctl is-active {UNIT}.service").out == "active\n"


def quadlet_files(shown: str) -> Iterator[tuple[str, str]]:
    """What `airgap service show --quadlet` printed: file name and text."""
    parts = re.split(r"(?m)^# (\S+\.(?:container|socket|service))\n", shown)[1:]
    yield from zip(parts[::2], parts[1::2], strict=True)
