"""The adapter around python-tuf: no cache, our clock, this version (docs/decisions/0003)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import securesystemslib
import tuf
from tuf.ngclient import Updater

from airgap.errors import TrustError
from airgap.trust.decide import DAY
from airgap.trust.refresh import refresh
from tests.lab import T0
from tests.unit.trust.forge import Case

PROJECT = Path(__file__).resolve().parents[3]


def test_versions_are_the_pinned_ones() -> None:
    pins = (PROJECT / "pyproject.toml").read_text()
    assert f'"tuf=={tuf.__version__}"' in pins
    assert f'"securesystemslib=={securesystemslib.__version__}"' in pins


def test_time_is_ours(case: Case) -> None:
    """Long after real time, and before it: only what we say counts."""
    files = case.files.metadata
    assert refresh(case.state.root, files, T0).targets.version == 2
    assert refresh(case.state.root, files, T0 - 10_000 * DAY).targets.version == 2
    with pytest.raises(TrustError) as e:
        refresh(case.state.root, files, T0 + 20_000 * DAY)
    assert e.value.id == "trust.expired"


def test_nothing_is_written_and_nothing_is_read(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that lies where somebody might look is never found."""
    monkeypatch.chdir(tmp_path)
    for name, data in {"root.json": b"junk", "timestamp.json": b"junk"}.items():
        (tmp_path / name).write_bytes(data)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    written: list[object] = []
    real = os.open

    def watching(path: object, flags: int, *rest: object, **kw: object) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(path)
        return real(path, flags, *rest, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", watching)
    refresh(case.state.root, case.files.metadata, T0)
    assert written == []
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_private_names_that_the_adapter_uses_are_there() -> None:
    for name in ("_persist_file", "_persist_root", "_update_root_symlink"):
        assert callable(getattr(Updater, name)), name


def test_target_names_are_not_prefixed_and_nothing_is_fetched_twice(case: Case) -> None:
    found = refresh(case.state.root, case.files.metadata, T0)
    assert list(found.targets.targets) == ["tiny/1.0.manifest.json"]
    assert found.root.version == 1
