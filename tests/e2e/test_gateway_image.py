"""The real LiteLLM from an image, behind the same door, in front of an engine from an image: a host
without a network and without one wheel."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from airgap.errors import IntegrityError
from airgap.events import Warn
from airgap.format.manifest import Manifest
from airgap.format.types import Check, Gateway
from airgap.host import activate, endpoint, locks, remove
from airgap.host.gateway import litellm as gateway
from airgap.host.gateway import tls
from airgap.host.images import launch, tool
from airgap.host.installed import verify_installed
from tests.e2e import container
from tests.e2e.door_client import DoorClient
from tests.e2e.hammer import hammering
from tests.e2e.hostlab import SUM, Parts, free_port, wait_for
from tests.e2e.image_world import Pulled, fetch
from tests.e2e.imagelab import ImageLab, no_network
from tests.e2e.litellm_image import push_litellm

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.environ.get("SEALIFT_TEST_LONG") != "1",
        reason="four minutes; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
    ),
]


@pytest.fixture(scope="module")
def pulled(
    litellm: tuple[Path, ...], docker_registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Pulled:
    """LiteLLM's image as `sealift` fetches it."""
    why = container.why_not()
    if why is not None:
        pytest.skip(why)
    scratch = tmp_path_factory.mktemp("litellm")
    reference = push_litellm(litellm[0].parent, docker_registry, scratch)
    return fetch(reference, tmp_path_factory.mktemp("fetched"), "gateway")


@dataclass
class Host:
    """Version 1 serves, its door is open, and `client` has a key."""

    lab: ImageLab
    pulled: Pulled
    door: int
    client: DoorClient = None  # type: ignore[assignment]

    def manifest(self, version: str, *checks: Check) -> Manifest:
        self.lab.put_image(self.pulled)
        found = self.lab.image_manifest(version, *checks)
        images = sorted((*found.artifacts, self.pulled.image), key=lambda a: a.name)
        plan = Gateway(image=self.pulled.image.name, port=self.door)
        (engine,) = (a.name for a in found.artifacts if a.kind == "image")
        serve = replace(found.serve, gateway=plan, image=engine)  # type: ignore[arg-type]
        return replace(found, artifacts=tuple(images), serve=serve)

    def containers(self, version: str = "1") -> list[str]:
        """Of the gateway alone."""
        label = tool.label_of(self.lab.paths.deployment("smol", version).gateway.folder)
        chosen = ("--filter", f"label={tool.LABEL}={label}")
        return self.lab.podman("ps", "--all", "--quiet", *chosen).out.split()

    def pid(self) -> int:
        """The first process in its container, as this host sees it."""
        (one,) = self.containers()
        return int(self.lab.podman("inspect", "--format", "{{.State.Pid}}", one).out)


@pytest.fixture(scope="module")
def host(
    parts: Parts, engine: Pulled, pulled: Pulled, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Host]:
    with no_network():
        folder = tmp_path_factory.mktemp("gi")
        lab = ImageLab(folder / "host", parts, free_port(), pulled=engine)
        made = Host(lab, pulled, free_port())
        try:
            lab.install(made.manifest("1"))
            made.client = DoorClient.of(lab.paths, made.door)
            yield made
        finally:
            lab.stop_all()
            lab.clean()
        assert lab.alive() == []


def test_an_answer_with_a_key_and_none_without(host: Host) -> None:
    code, body, fields = host.client.chat()
    assert code == 200, body
    assert "4" in json.loads(body)["choices"][0]["message"]["content"]
    assert not [n for n in fields if n.lower().startswith(("x-litellm", "llm_provider", "server"))]
    code, body, _ = host.client.ask()
    assert (code, [m["id"] for m in json.loads(body)["data"]]) == (200, ["smol"])
    for wrong in (None, "sk-airgap-wrong", host.client.key + "x"):
        assert host.client.ask(key=wrong)[0] == 401
    for inside in ("/health", "/health/liveliness", "/key/generate", "/config/yaml", "/"):
        assert host.client.ask(path=inside)[0] == 404


def test_no_wheel_and_no_environment_is_on_the_host(host: Host) -> None:
    root = host.lab.root
    mine = [p for p in root.rglob("*") if "containers" not in p.relative_to(root).parts]
    assert not [p for p in mine if p.suffix == ".whl" or p.name in ("venv", "pyvenv.cfg")]


def test_it_made_its_own_certificate_in_the_container(host: Host) -> None:
    warned = [e for e in host.lab.events if isinstance(e, Warn) and e.id == "gateway.self-signed"]
    assert len(warned) == 1 and tls.fingerprint(host.lab.paths) in warned[0].text
    assert (host.lab.paths.tls / "key.pem").stat().st_mode & 0o777 == 0o600


def test_container_has_no_rights_no_network_and_one_way_out(host: Host) -> None:
    pid = host.pid()
    said = Path(f"/proc/{pid}/status").read_text()
    caps = re.findall(r"^Cap\w+:\s*(\w+)$", said, re.M)
    assert len(caps) == 5 and set(caps) == {"0" * 16}
    assert re.search(r"^NoNewPrivs:\s*1$", said, re.M)
    assert re.search(rf"^Uid:\s*{launch.USER}\s", said, re.M)
    mounts = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        _, _, _, _, target, options, *_ = line.split()
        mounts[target] = options.split(",")
    place = host.lab.paths.deployment("smol", "1").gateway
    assert "ro" in mounts["/"] and "ro" in mounts[str(place.run / "inside")]
    assert not [
        t for t in mounts if t.startswith(str(host.lab.paths.deployment("smol", "1").model))
    ]
    # Within its network: its own loopback, and nothing on it but LiteLLM and the way to the front.
    inside = ["nsenter", "--target", str(pid), "--net", sys.executable, "-I", "-c", REACH]
    done = subprocess.run(inside, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"devices": ["lo"], "ports": [4000, 4001], "health": "200"}


REACH = """
import json, socket
tables = [open(f"/proc/self/net/{t}").read().splitlines()[1:] for t in ("tcp", "tcp6")]
rows = [line.split() for table in tables for line in table]
listening = sorted(int(r[1].rpartition(":")[2], 16) for r in rows if r[3] == "0A")
with socket.create_connection(("127.0.0.1", 4001), 5) as s:
    s.sendall(b"GET /health HTTP/1.0\\r\\nHost: x\\r\\n\\r\\n")
    health = s.recv(12).split()[1].decode()
devices = [name for _, name in socket.if_nameindex()]
print(json.dumps({"devices": devices, "ports": listening, "health": health}))
"""


def test_its_key_stands_in_no_command_line_and_in_no_file_but_one(host: Host) -> None:
    place = host.lab.paths.deployment("smol", "1").gateway
    key = gateway.master_key(place)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        assert key.encode() not in line
    assert gateway.key_path(place).stat().st_mode & 0o777 == 0o640
    assert place.run.stat().st_mode & 0o777 == 0o700
    given = place.run / "inside"
    assert {p.name for p in given.iterdir()} == {"config.json", "ferry.py"}
    assert not [p for p in given.iterdir() if key.encode() in p.read_bytes()]


def test_killed_gateway_comes_back_in_a_new_container(host: Host) -> None:
    place = host.lab.paths.deployment("smol", "1").gateway
    (before,) = host.containers()
    os.kill(host.pid(), signal.SIGKILL)
    wait_for(lambda: (e := endpoint.live(place)) is not None and e.crashes >= 1 and e.state == "up")
    wait_for(lambda: len(host.containers()) == 1 and host.containers() != [before])
    wait_for(lambda: host.client.chat()[0] == 200, 120)


def test_killed_supervisor_takes_its_container_along(host: Host) -> None:
    pid = locks.holder(host.lab.paths.deployment("smol", "1").gateway.supervisor_lock)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: host.containers() == [], 30)
    host.lab.install(host.manifest("1"))
    assert len(host.containers()) == 1 and host.client.chat()[0] == 200


def test_second_install_changes_nothing(host: Host) -> None:
    before = host.lab.containers()
    host.lab.install(host.manifest("1"))
    assert host.lab.containers() == before


def test_no_client_sees_an_upgrade_or_a_rollback(host: Host) -> None:
    new = host.manifest("2", SUM)
    host.lab.stage(new)
    hammer = host.client.many()
    with hammering(hammer, ("keep_alive", "fresh", "stream")):
        host.lab.install(new)
        with host.lab.paths.exclusive("test"):
            activate.rollback(host.lab.paths, "smol", lambda m, d: None)
    assert hammer.wrong == []
    assert all(hammer.right.get(k, 0) for k in ("keep-alive", "fresh", "stream")), hammer.right
    assert host.lab.current() == "1" and host.containers("2") == []


def test_installed_files_are_right_and_removal_leaves_no_image(host: Host) -> None:
    with pytest.raises(IntegrityError) as e:
        verify_installed(host.lab.paths)
    # This host trusts nobody, so its receipts cannot be judged; every file is as it was made.
    assert e.value.why.startswith("ledger: ") and "\n" not in e.value.why
    with host.lab.paths.exclusive("test"):
        remove.uninstall(host.lab.paths, "smol", stop=True, purge=True)
    assert host.lab.containers() == []
    assert host.lab.podman("images", "--quiet").out.split() == []
    assert not host.lab.paths.deployments.exists() or not list(host.lab.paths.deployments.iterdir())
