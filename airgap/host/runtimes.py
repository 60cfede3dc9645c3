"""What an engine runs from: an environment of wheels, or a container image. Staging and the
supervisor know only this."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import engine_for, serving_plan
from airgap.events import Sink
from airgap.format.manifest import Manifest
from airgap.format.types import FileEntry
from airgap.host import interpreter, venv
from airgap.host.deployment import Deployment
from airgap.host.paths import DeploymentPaths, HostPaths


@dataclass(frozen=True)
class Made:
    """What made it, in words for the deployment's record, and the SHA-256 of the environment's list
    of checksums, where there is one."""

    python: str
    installer: str
    sums: str | None = None


class Runtime(Protocol):
    """One way to run an engine."""

    def files(self, place: DeploymentPaths, manifest: Manifest) -> Iterator[tuple[Path, FileEntry]]:
        """Files of the store that it needs in the deployment's folder, and where."""
        ...

    def choose(self, manifest: Manifest) -> None:
        """Find what it needs of the host, before anything is written. Raises HostError."""
        ...

    def build(self, place: DeploymentPaths, manifest: Manifest, sink: Sink) -> Made:
        """Make it, after `choose`; may be killed and made again."""
        ...

    def renew(self, manifest: Manifest, sink: Sink) -> None:
        """A deployment that is staged already: bring back what lies outside its folder."""
        ...

    def plan(self, deployment: Deployment, port: int) -> LaunchPlan:
        """How the supervisor starts the engine on 127.0.0.1:`port`."""
        ...


def runtime_for(
    paths: HostPaths, manifest: Manifest, *, uv: Path | None = None, kit: Path | None = None
) -> Runtime:
    """The runtime of the manifest's serving plan."""
    if serving_plan(manifest).runtime == "image":
        from airgap.host.images.runtime import ImageRuntime  # no other start pays for it

        return ImageRuntime(paths)
    return VenvRuntime(uv, kit)


class VenvRuntime:
    """Wheels in an environment, shared by deployments of the same wheels."""

    def __init__(self, uv: Path | None = None, kit: Path | None = None) -> None:
        self._named = (uv, kit)
        self._chosen: tuple[Path, venv.Installer] | None = None

    def files(self, place: DeploymentPaths, manifest: Manifest) -> Iterator[tuple[Path, FileEntry]]:
        """The wheels."""
        yield from ((place.wheels / f.path, f) for f in manifest.wheels_to_serve().files)

    def choose(self, manifest: Manifest) -> None:
        """The Python of the target, and an installer."""
        python = interpreter.find(manifest.target.python)
        self._chosen = python, venv.choose_installer(*self._named)

    def build(self, place: DeploymentPaths, manifest: Manifest, sink: Sink) -> Made:
        """The environment."""
        assert self._chosen is not None  # noqa: S101 - `choose` comes first
        python, installer = self._chosen
        done = venv.build(place, manifest.wheels_to_serve(), python, installer, sink)
        return Made(f"{manifest.target.python} {python}"[:300], done.installer, done.sums)

    def renew(self, manifest: Manifest, sink: Sink) -> None:
        """Nothing of it lies elsewhere."""

    def plan(self, deployment: Deployment, port: int) -> LaunchPlan:
        """The engine itself is the supervisor's child."""
        manifest = deployment.manifest
        return engine_for(manifest).plan(manifest, deployment.paths, port)
