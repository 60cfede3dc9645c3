"""The whole way of an engine's image by the command lines: a registry, two officers, a medium, a
host in an empty network namespace, an answer, a way back, and nothing left in the end."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host.images import tool
from airgap.host.paths import HostPaths
from tests.e2e.hostlab import PYTHON
from tests.e2e.image_world import engine_image, relabelled
from tests.e2e.world import QUESTION, Connected, Isolated
from tests.unit.images.maker import Made, push, tar_of

# In the process of test_journey.py: what both need of the connected side is made once there.
pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("e2e/test_journey.py")]

NAME = "smolimage"
REPOSITORY = "journey/engine"
REQUEST = """\
name = "{name}"
version = "{version}"
[target]
python = "{python}"
platform = "x86_64-manylinux_2_35"
accelerator = "cpu"
[[model]]
path = "{model}"
label = "SmolLM2"
licence = "Apache-2.0"
[[image]]
name = "engine"
reference = "{image}:{version}"
platform = "linux/amd64"
[serve]
engine = "llama.cpp"
runtime = "image"
name = "smol"
port = {port}
max-model-len = 512
[[serve.check]]
prompt = "{question}"
expect = "{expect}"
"""


def request(connected: Connected, registry: str, version: str, **changes: str) -> str:
    """A request for the image with that tag, as a file; `changes` replace values by key."""
    values = {"name": NAME, "version": version, "python": PYTHON, "question": QUESTION}
    values |= {"image": f"{registry.removeprefix('http://')}/{REPOSITORY}", "expect": "4"}
    values |= {"model": str(connected.parts.gguf), "port": str(connected.port), **changes}
    path = connected.folder / f"{NAME}-{version}.toml"
    path.write_text(REQUEST.format(**values))
    return str(path)


def bundle(connected: Connected, version: str, words: tuple[str, ...]) -> Path:
    """Approved by two officers and packed."""
    connected.sealift(*words)
    packet = f"home/builds/{NAME}/{version}/packet"
    connected.approve(packet, "alice", "bob")
    connected.sealift("collect", packet)
    connected.sealift("pack", NAME, version, "-o", "images")
    return connected.folder / "images" / f"{NAME}-{version}"


@pytest.fixture(scope="module")
def engine(connected: Connected, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An image that holds a real engine, and the next version of it: with a label more."""
    if os.geteuid() != 0:
        pytest.skip("podman on this kernel needs root")
    made = engine_image(connected.parts.wheel, tmp_path_factory.mktemp("engine"), "1")
    relabelled(made, "1", "2")
    return made


@pytest.fixture(scope="module")
def bundles(connected: Connected, engine: Made, docker_registry: str) -> tuple[Path, Path]:
    """Both versions, as they lie on a medium."""
    push(engine, docker_registry, REPOSITORY)
    first, second = (request(connected, docker_registry, v) for v in ("1", "2"))
    connected.sealift("lock", first)
    connected.sealift("fetch", first)
    return bundle(connected, "1", ("build", first)), bundle(connected, "2", ("build", second))


@pytest.fixture(scope="module")
def host(connected: Connected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    """A host that trusts the officers and has nothing; the tests take it on in their order."""
    root = tmp_path_factory.mktemp("isolated") / "root"
    made = Isolated(root, connected.folder / "kit" / "airgap.pyz")
    try:
        made.trust(connected.home / "root.json")
        yield made
    finally:
        made.close(NAME)
        if (root / "containers").exists():
            podman(made, "rm", "--all", "--force")
            podman(made, "rmi", "--all", "--force")
            shutil.rmtree(engine_of(made).volatile(), ignore_errors=True)


def engine_of(host: Isolated) -> tool.Podman:
    found = tool.choose(HostPaths(host.root))
    assert isinstance(found, tool.Podman), "install podman (the Makefile's TEST_PACKAGES)"
    return found


def podman(host: Isolated, *words: str) -> list[str]:
    """What the podman storage of this root answers, in words."""
    return tool.ask(engine_of(host), *words).out.split()


def digest_in(medium: Path) -> str:
    """The digest under which any OCI tool finds the image on the medium."""
    listed = json.loads((medium / "index.json").read_bytes())["manifests"]
    name = "org.opencontainers.image.ref.name"
    return str(next(m["digest"] for m in listed if m["annotations"][name] == "engine"))


def serves(host: Isolated, connected: Connected, medium: Path) -> None:
    """One container runs, of exactly the image on that medium, and it answers."""
    answer = host.ask(connected.port)
    assert "4" in answer["choices"][0]["message"]["content"]
    (container,) = podman(host, "ps", "--quiet")
    assert podman(host, "inspect", "--format", "{{.ImageDigest}}", container) == [digest_in(medium)]


def test_image_with_a_trap_in_a_layer_never_reaches_an_officer(
    connected: Connected, docker_registry: str
) -> None:
    escape = tarfile.TarInfo("../../etc/cron.d/engine")
    made = Made()
    made.image(tar_of({"engine": b"#!/bin/sh\n"}, escape), tag="evil")
    push(made, docker_registry, REPOSITORY)
    words = ("build", request(connected, docker_registry, "evil"))
    done = connected.sealift(*words, expect=5)
    assert "image.path" in done.err
    assert not (connected.home / "builds" / NAME / "evil" / "packet").exists()


def test_layer_changed_on_the_way_is_refused_and_nothing_is_pulled(
    host: Isolated, bundles: tuple[Path, Path]
) -> None:
    blobs = bundles[0] / "blobs/sha256"
    manifest = json.loads((blobs / digest_in(bundles[0]).removeprefix("sha256:")).read_bytes())
    layer = blobs / manifest["layers"][-1]["digest"].removeprefix("sha256:")
    flip(layer)
    try:
        done = host.airgap("install", str(bundles[0]), expect=3)
        assert done.error["id"] == "integrity.digest"
    finally:
        flip(layer)
    assert not (host.root / "containers").exists()
    assert not (host.root / "deployments").exists()


def flip(path: Path) -> None:
    """Another byte in the middle; twice is as before."""
    path.chmod(0o644)
    with open(path, "r+b") as f:
        f.seek(path.stat().st_size // 2)
        byte = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte ^ 1]))


def test_image_serves_is_followed_by_the_next_and_comes_back(
    host: Isolated, connected: Connected, bundles: tuple[Path, Path]
) -> None:
    first, second = bundles
    host.airgap("verify", str(first))
    host.airgap("install", str(first))
    serves(host, connected, first)
    host.airgap("install", str(second))
    serves(host, connected, second)
    host.airgap("rollback", NAME)
    serves(host, connected, first)


def test_uninstall_leaves_no_container_and_no_image(host: Isolated) -> None:
    host.airgap("uninstall", NAME, "--stop")
    assert podman(host, "ps", "--all", "--quiet") == []
    assert podman(host, "images", "--quiet") == []
