"""A lock of NAME lab 1 around given artifacts, for tests that need no request."""

from __future__ import annotations

from airgap.format.artifacts import LockedArtifact
from airgap.format.lock import Lock
from airgap.format.types import Target


def lab_lock(*artifacts: LockedArtifact) -> Lock:
    return Lock(
        request="0" * 64,
        name="lab",
        version="1",
        summary="A test",
        release=1,
        created=1_790_000_000,
        not_after=1_800_000_000,
        audience=(),
        handling="",
        target=Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu"),
        artifacts=artifacts,
    )
