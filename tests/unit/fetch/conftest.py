"""Wheels are resolved by the real uv; its own and pip's configuration are set by each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bundler.workspace import Workspace
from tests.unit.fetch.server import Server, serving


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    return Workspace(tmp_path / "home")


@pytest.fixture
def index() -> Iterator[Server]:
    with serving() as running:
        yield running
