"""What an engine is to the rest: a name, what it needs of the host, and how it is launched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from airgap.format.manifest import Manifest
from airgap.host.paths import DeploymentPaths


@dataclass(frozen=True)
class SystemLibrary:
    """A shared library that wheels do not carry, and the Debian package that brings it."""

    soname: str
    package: str


@dataclass(frozen=True)
class LaunchPlan:
    """Everything needed to start an engine: nothing of our own environment is added to it.

    `health_path` answers 200 once the engine can serve.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    health_path: str


@dataclass(frozen=True)
class Meaning:
    """What an engine's message means, and what to do about it."""

    why: str
    do: str


class Engine(Protocol):
    """One serving engine."""

    @property
    def name(self) -> str:
        """As a request names it."""
        ...

    @property
    def health_path(self) -> str:
        """Answers 200 once the engine can serve."""
        ...

    def system_libraries(self, manifest: Manifest) -> tuple[SystemLibrary, ...]:
        """What the host must have beside the wheels."""
        ...

    def shared_memory(self, manifest: Manifest) -> int:
        """Bytes that must be free in /dev/shm when it starts outside of an image."""
        ...

    def check(self, manifest: Manifest) -> None:
        """Raise HostError when this engine cannot serve that model at all."""
        ...

    def plan(self, manifest: Manifest, paths: DeploymentPaths, port: int) -> LaunchPlan:
        """How to serve the staged deployment on 127.0.0.1:`port`. Raises HostError."""
        ...

    def explain(self, log: str) -> Meaning | None:
        """Why the engine ended, by the end of its log; None when nothing known is there."""
        ...

    def contained(self, manifest: Manifest, paths: DeploymentPaths, socket: str) -> LaunchPlan:
        """How to serve it within its image, on the Unix socket `socket`. Every file lies where it
        does outside. An empty program means the image's own."""
        ...
