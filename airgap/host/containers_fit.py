"""Can this host run a bundle's images? A container engine, and GPUs for its containers."""

from __future__ import annotations

from collections.abc import Iterator

from airgap.format.facts import engine_of
from airgap.format.manifest import Manifest
from airgap.host import system
from airgap.host.fit import Problem


def problems(manifest: Manifest) -> Iterator[Problem]:
    """Everything that is in the way of a container of it, with GPUs where its target has them."""
    yield from _container_engine()
    inside = manifest.serve is not None and manifest.serve.runtime == "image"
    if inside and manifest.target.accelerator.startswith("cuda"):
        yield from _too_old_for_cdi()
        yield from _no_cdi()


def _container_engine() -> Iterator[Problem]:
    names = {r.name for r in system.runtimes()}
    if not names & {"podman", "docker"}:
        yield Problem(
            "container engine",
            "the bundle runs from images, and neither podman nor docker is here",
            "install podman from this host's own package source, or bring a bundle that is "
            "served from wheels",
        )


def _too_old_for_cdi() -> Iterator[Problem]:
    """Of the engines only the one that would be taken: podman before docker."""
    engine = engine_of(system.runtimes())
    if engine is not None and engine.lacks_cdi:
        yield Problem(
            "CDI",
            f"{engine.name} {engine.version} gives containers no GPUs by CDI",
            f"install {engine.lacks_cdi}, from this host's own package source",
        )


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
