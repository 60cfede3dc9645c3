"""The Quadlet unit of an engine's container: by podman's generator, judged by systemd itself."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import HostError
from airgap.host.deployment import Deployment, DeploymentRecord
from airgap.host.images import bring, launch, tool
from airgap.host.paths import HostPaths
from airgap.host.systemd import manager, quadlet
from tests.caches import alone
from tests.e2e import quadletlab
from tests.unit.host.parts import digest_of, image_manifest, make_manifest

pytestmark = pytest.mark.e2e
NAME = "sealift-tiny-container"
IMAGE = "c" * 64


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """Of an image on a GPU; nothing of it is pulled."""
    monkeypatch.setattr(bring, "config_digest", lambda *_: IMAGE)
    paths = HostPaths(tmp_path / "host")
    manifest = image_manifest(make_manifest(paths))
    manifest = replace(manifest, target=replace(manifest.target, accelerator="cuda-13"))
    place = paths.deployment("tiny", "1")
    place.model.mkdir(parents=True)
    words = {"engine": "llama.cpp", "python": "in the image", "installer": "podman"}
    record = DeploymentRecord(
        name="tiny", version="1", manifest=digest_of(manifest), staged=1, **words
    )
    return Deployment(place, manifest, record.manifest, record)


def argv_of(deployment: Deployment, podman: tool.Podman) -> tuple[str, ...]:
    """The command line by which airgap itself runs that container."""
    place, manifest = deployment.paths, deployment.manifest
    container = launch.Container(IMAGE, "sealift-tiny", "x")
    return launch.run_argv(podman, container, launch.of_engine(manifest, place))


def test_generated_service_runs_the_container_that_airgap_runs(
    deployment: Deployment, test_cache: Path, tmp_path: Path
) -> None:
    with alone(test_cache):
        program = quadletlab.generator(test_cache)
    paths = HostPaths(tmp_path / "host")
    podman = tool.choose(paths)
    assert isinstance(podman, tool.Podman), "install podman (the Makefile's TEST_PACKAGES)"
    source, made = tmp_path / "units", tmp_path / "made"
    for folder in (source, made):
        folder.mkdir()
    for filename, text in quadlet.render(paths, deployment).items():
        (source if filename.endswith(".container") else made).joinpath(filename).write_text(text)
    quadletlab.generate(program, source, made)
    lines = (made / f"{NAME}.service").read_text().splitlines()
    (start,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    words = start.replace("=true ", " ").replace("=", " ").split()
    ours = argv_of(deployment, podman)
    for wanted in (
        *("--network none", "--read-only", "--read-only-tmpfs false", "--cap-drop all", "--rm"),
        *("--security-opt no-new-privileges", "--pull never", "--no-healthcheck"),
        *(f"--user {launch.user()}:{launch.user()}", f"--device {launch.GPUS.replace('=', ' ')}"),
        f"{IMAGE} {' '.join(ours[ours.index(IMAGE) + 1 :])}",
    ):
        assert f" {wanted} " in f" {' '.join(words)} ", (wanted, start)
    for mount in (w for w, before in zip(ours[1:], ours, strict=False) if before == "--mount"):
        if f"target={launch.SOCKET_FOLDER}" not in mount:
            assert f"--mount {mount} " in start, (mount, start)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here: the units were generated, not verified")
    manager.verify(made, [f"{NAME}.service", f"{NAME}-port.service", f"{NAME}-port.socket"])


def test_engine_from_wheels_has_no_quadlet_unit(deployment: Deployment, tmp_path: Path) -> None:
    paths = HostPaths(tmp_path / "host")
    with pytest.raises(HostError) as e:
        quadlet.render(paths, replace(deployment, manifest=make_manifest(paths)))
    assert e.value.id == "host.no-quadlet"
