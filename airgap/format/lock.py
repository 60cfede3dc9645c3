"""The lock: the request with every choice made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from airgap.format.artifact_rules import check_artifacts, check_serve
from airgap.format.artifacts import LockedArtifact
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import (
    Line,
    Name,
    Release,
    Seconds,
    Serve,
    Sha256,
    Target,
    Version,
    Waiver,
)


@dataclass(frozen=True, kw_only=True)
class Lock(Document):
    """`created` and `not_after` are UTC POSIX seconds; the manifest takes both from here, so that
    one lock gives one manifest."""

    schema: Annotated[str, Choice(("sealift.lock/1",))] = "sealift.lock/1"
    request: Sha256
    name: Name
    version: Version
    summary: Line
    release: Release
    created: Seconds
    not_after: Seconds
    audience: tuple[Name, ...]
    handling: Line
    target: Target
    artifacts: tuple[LockedArtifact, ...]
    serve: Serve | None = None
    waivers: tuple[Waiver, ...] = ()

    def validate(self) -> None:
        check_artifacts(self.artifacts)
        check_serve(self.serve, self.artifacts)
