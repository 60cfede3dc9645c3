"""What differs between the demo's engines: the parts that are fetched, the request, the policy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from airgap.events import Sink
from airgap.format.types import Target
from bundler.workspace import Workspace


@dataclass(frozen=True)
class Place:
    """Where a recipe works: everything under `folder`; `port` is the server's on loopback."""

    folder: Path
    workspace: Workspace
    target: Target
    port: int
    sink: Sink


@dataclass(frozen=True)
class Prepared:
    """The request and the policy as people write them, and what `sealift` needs to be told.

    `story`: what is special about this run, in a few words for the closing note.
    """

    request: str
    policy: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    story: str = ""


class Recipe(Protocol):
    """One engine's demo."""

    @property
    def title(self) -> str:
        """Model and engine, for the first line."""

    @property
    def downloads(self) -> Mapping[str, int]:
        """What is fetched once, in bytes."""

    @property
    def disk_bytes(self) -> int:
        """What lies under the demo's folder in the end."""

    @property
    def minutes(self) -> str:
        """How long it takes after the downloads."""

    @property
    def libraries(self) -> Mapping[str, str]:
        """System libraries that the engine loads, and the Debian packages that bring them."""

    def fetched(self, folder: Path) -> bool:
        """Whether an earlier run left the downloads."""

    def keep(self, folder: Path) -> set[Path]:
        """What of an earlier run is not cleared away."""

    def prepare(self, place: Place) -> AbstractContextManager[Prepared]:
        """Fetch what only the demo needs; what it serves (a local Hub) is there until the end."""
