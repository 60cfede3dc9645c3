"""The runtime that is a container image; `airgap.host.runtimes` says what a runtime is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from airgap import environment
from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import engine_for
from airgap.events import Sink
from airgap.format.manifest import Manifest
from airgap.format.types import FileEntry
from airgap.host import processes
from airgap.host.deployment import Deployment
from airgap.host.images import bring
from airgap.host.paths import DeploymentPaths, HostPaths
from airgap.host.runtimes import Made


class ImageRuntime:
    """A container of the image, in the host's container engine."""

    def __init__(self, paths: HostPaths) -> None:
        self._paths = paths

    def files(self, place: DeploymentPaths, manifest: Manifest) -> Iterator[tuple[Path, FileEntry]]:  # noqa: ARG002
        """None: the container engine has its own storage."""
        yield from ()

    def choose(self, manifest: Manifest) -> None:  # noqa: ARG002
        """A container engine."""
        bring.engine(self._paths)

    def build(self, place: DeploymentPaths, manifest: Manifest, sink: Sink) -> Made:  # noqa: ARG002
        """The image, pulled by digest."""
        return Made("in the image", bring.bring(self._paths, manifest.image_to_serve(), sink))

    def renew(self, manifest: Manifest, sink: Sink) -> None:
        """The container engine may have lost it: its storage is not ours alone."""
        bring.bring(self._paths, manifest.image_to_serve(), sink)

    def plan(self, deployment: Deployment, port: int) -> LaunchPlan:
        """A daemon of ours is the supervisor's child, and the container's parent."""
        place = deployment.paths
        words = ("contain", place.name, place.version, str(port))
        env = environment.private(place.run / "home", place.tmp) | environment.reached()
        health = engine_for(deployment.manifest).health_path
        return LaunchPlan(processes.daemon_command(self._paths, *words), env, place.run, health)
