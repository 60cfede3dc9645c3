"""What an engine is to the rest: a name, what it serves, what it needs of the host, and how it is
launched. Both sides ask it: the builder before anything is fetched, the host before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from airgap.format.manifest import Manifest
from airgap.format.types import Serve


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


class Place(Protocol):
    """Where a staged deployment has what an engine is started on."""

    @property
    def venv(self) -> Path:
        """The environment of its wheels."""
        ...

    @property
    def model(self) -> Path:
        """The folder of the model's files."""
        ...

    @property
    def chat_template(self) -> Path:
        """The approved template, where the model has one."""
        ...

    @property
    def run(self) -> Path:
        """Its private folder: the engine's home lies in it."""
        ...

    @property
    def tmp(self) -> Path:
        """The private folder for temporary files."""
        ...

    def adapter(self, name: str) -> Path:
        """The folder of an adapter's files."""
        ...

    def plain_files(self, name: str) -> Path:
        """The folder of an artifact of plain files."""
        ...


class Engine(Protocol):
    """One serving engine. A further one is a file beside these and its line in the registry."""

    @property
    def name(self) -> str:
        """As a request names it."""
        ...

    @property
    def formats(self) -> tuple[str, ...]:
        """Formats of models that it serves, as a lock names them."""
        ...

    @property
    def health_path(self) -> str:
        """Answers 200 once the engine can serve."""
        ...

    @property
    def plans_sequences(self) -> bool:
        """Whether max-num-seqs and kv-cache-gib reach it; else its cache is of one context."""
        ...

    def system_libraries(self, accelerator: str) -> tuple[SystemLibrary, ...]:
        """What the host must have beside the wheels for `accelerator`, as a target names it."""
        ...

    def cpu_features(self, accelerator: str, machine: str) -> tuple[str, ...]:
        """What its wheels' own code needs of a processor of `machine` (`x86_64`, `aarch64`), as
        /proc/cpuinfo spells it; it ends with an illegal instruction where one is lacking."""
        ...

    def refuses(self, quantised: str, capability: int | None) -> str:
        """Why it does not serve weights quantised so (as `config.json` names it:
        `compressed-tensors:int-quantized`) there; empty where it does. `capability`: of the weakest
        GPU in tenths, None on a CPU."""
        ...

    def gives_template(self, serve: Serve) -> bool:
        """Whether it is started with the approved chat template, and does not choose by itself."""
        ...

    def shared_memory(self, manifest: Manifest) -> int:
        """Bytes of /dev/shm that its processes need to speak with each other; 0 where it is one."""
        ...

    def check(self, manifest: Manifest) -> None:
        """Raise HostError when this engine cannot serve that model at all."""
        ...

    def plan(self, manifest: Manifest, paths: Place, port: int) -> LaunchPlan:
        """How to serve the staged deployment on 127.0.0.1:`port`. Raises HostError."""
        ...

    def explain(self, log: str) -> Meaning | None:
        """Why the engine ended, by the end of its log; None when nothing known is there."""
        ...

    def contained(self, manifest: Manifest, paths: Place, socket: str) -> LaunchPlan:
        """How to serve it within its image, on the Unix socket `socket`. Every file lies where it
        does outside. An empty program means the image's own."""
        ...
