"""A real registry, ours with faults, and no credentials of the person who runs the tests."""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.workspace import Workspace
from tests.unit.fetch.server import closed_port
from tests.unit.images.faulty import Faulty, serving

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry on loopback; its origin."""
    program = shutil.which("docker-registry")
    assert program, "install docker-registry from Debian (the Makefile's TEST_PACKAGES)"
    folder = tmp_path_factory.mktemp("registry")
    port = closed_port()
    (folder / "config.yml").write_text(CONFIG.format(folder=folder / "data", port=port))
    with open(folder / "log", "wb") as log:
        running = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], stdout=log, stderr=log
        )
    try:
        _wait(f"http://127.0.0.1:{port}/v2/")
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise AssertionError("the registry did not start")


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    with serving(Faulty()) as running:
        yield running


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home-of-nobody"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    made = Workspace(tmp_path / "home")
    made.store.prepare()
    return made
