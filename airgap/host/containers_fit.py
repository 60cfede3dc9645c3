"""Can this host run a bundle's image? A container engine, and GPUs for its containers."""

from __future__ import annotations

from collections.abc import Iterator

from airgap.format.facts import CDI_SINCE
from airgap.format.manifest import Manifest
from airgap.host import system
from airgap.host.fit import Problem
from airgap.host.images import tool


def problems(manifest: Manifest) -> Iterator[Problem]:
    """Everything that is in the way of a container of it, with GPUs where its target has them."""
    yield from _container_engine()
    if manifest.target.accelerator.startswith("cuda"):
        yield from _too_old_for_cdi()
        yield from _no_cdi()


def _container_engine() -> Iterator[Problem]:
    names = {r.name for r in system.runtimes()}
    if not names & {"podman", "docker"}:
        yield Problem(
            "container engine",
            "the bundle runs as an image, and neither podman nor docker is here",
            "install podman from this host's own package source, or bring a bundle whose "
            "serve.runtime is venv",
        )


def _too_old_for_cdi() -> Iterator[Problem]:
    """Of the engines only the one that would be taken: podman before docker."""
    here = {r.name: r.version for r in system.runtimes()}
    name = next((n for n in tool.NAMES if n in here), None)
    if name is None:
        return
    least = CDI_SINCE[name]
    if tuple(int(n) for n in here[name].split(".")[:2]) < least:
        do = f"install {name} {least[0]}.{least[1]} or newer from this host's own package source"
        if name == "docker":
            do += ', with {"features": {"cdi": true}} in /etc/docker/daemon.json; or podman'
        yield Problem("CDI", f"{name} {here[name]} gives containers no GPUs by CDI", do)


def _no_cdi() -> Iterator[Problem]:
    """A container is given GPUs by the Container Device Interface alone."""
    if not system.has_cdi():
        yield Problem(
            "CDI",
            "the bundle runs as an image on a GPU, and no file in /etc/cdi or /var/run/cdi "
            "describes nvidia.com/gpu",
            "install nvidia-container-toolkit from this host's own package source, then "
            "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`",
        )
