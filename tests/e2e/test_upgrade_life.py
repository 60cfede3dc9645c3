"""Upgrade life with a real engine: nobody notices a switch, a bad version goes back by itself."""

from __future__ import annotations

import itertools

import pytest

from airgap.format.manifest import Manifest
from airgap.host import activate
from tests.e2e.hammer import Hammer, hammering
from tests.e2e.hostlab import SUM, HostLab

pytestmark = pytest.mark.e2e


def fine(_manifest: Manifest, _digest: str) -> None:
    """A judge that lets everything serve."""


def test_no_client_sees_an_upgrade_or_a_rollback(host: HostLab) -> None:
    host.install(host.manifest("1"))
    new = host.manifest("2", SUM)
    host.stage(new)
    counts = []
    with hammering(Hammer(host.port)) as hammer:
        counts.append(dict(hammer.right))
        host.install(new)
        counts.append(dict(hammer.right))
        with host.paths.exclusive("test"):
            activate.rollback(host.paths, "smol", fine)
        counts.append(dict(hammer.right))
    assert hammer.wrong == []
    assert host.current() == "1"
    for before, after in itertools.pairwise(counts):
        for kind in ("keep-alive", "fresh", "stream"):
            assert after.get(kind, 0) > before.get(kind, 0), f"nothing was asked: {counts}"
