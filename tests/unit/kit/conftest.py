"""One kit for all tests here; the pinned wheels come from the configured index once."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from airgap.host import interpreter
from bundler.pack import pyz
from bundler.pack.kit import PYZ, pinned_wheels
from tests.caches import alone

# `env -i`: what a host's service manager or a bare login gives, and less.
EMPTY = {"LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Program:
    """airgap.pyz as a file, run as a host would."""

    path: Path

    def run(
        self, *words: str, python: str = sys.executable, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        argv = [python, "-I", "-S", str(self.path), *words]
        return subprocess.run(
            argv, env=env or EMPTY, capture_output=True, text=True, check=False, cwd="/"
        )


@pytest.fixture(scope="session")
def cache(pytestconfig: pytest.Config) -> Path:
    """Where the pinned wheels are kept: $SEALIFT_TEST_CACHE or pytest's cache."""
    named = os.environ.get("SEALIFT_TEST_CACHE")
    store = pytestconfig.cache
    assert store is not None
    folder = Path(named) if named else store.mkdir("kit")
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):  # other processes of this run want the same
        pinned_wheels(folder / "kit")
    return folder


@pytest.fixture(scope="session")
def wheels(cache: Path) -> Sequence[bytes]:
    return pinned_wheels(cache / "kit")


@pytest.fixture(scope="session")
def program(wheels: Sequence[bytes], tmp_path_factory: pytest.TempPathFactory) -> Program:
    folder = tmp_path_factory.mktemp("program")
    path = folder / PYZ
    path.write_bytes(pyz.build(wheels, folder))
    return Program(path)


@functools.cache
def pythons() -> list[str]:
    """Every Python from 3.10 on that this machine has, this one first."""
    found = {}
    for minor in (sys.version_info[1], *range(10, 15)):
        for candidate in interpreter.candidates(f"3.{minor}"):
            answer = interpreter.ask(candidate)
            if answer is not None and answer[0] == f"3.{minor}":
                found.setdefault(answer[0], str(answer[1]))
    return list(found.values())
