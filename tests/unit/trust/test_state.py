"""What a host remembers, on disk: whole or refused, never guessed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import SealiftError, TrustError
from airgap.trust import state as trust_state
from airgap.trust.state import Remembered
from tests.unit.trust.forge import Case


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "host" / "trust.json"


def test_what_is_saved_is_loaded(case: Case, path: Path) -> None:
    for state in (case.state, case.decide().learned, replace(case.state, accept_solo=True)):
        trust_state.save(path, state)
        assert trust_state.load(path) == state
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["trust.json"]


def test_missing_file_is_not_a_fresh_host(path: Path) -> None:
    with pytest.raises(TrustError) as e:
        trust_state.load(path)
    assert (e.value.id, e.value.exit_code) == ("trust.none", 4)


def test_cut_at_any_place_is_damaged(case: Case, path: Path) -> None:
    trust_state.save(path, case.decide().learned)
    data = path.read_bytes()
    for size in [*range(0, len(data), 97), len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(TrustError) as e:
            trust_state.load(path)
        assert e.value.id == "trust.state-damaged"


def test_any_flipped_bit_is_damaged(case: Case, path: Path) -> None:
    trust_state.save(path, case.decide().learned)
    data = path.read_bytes()
    for at in range(0, len(data), 31):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(TrustError) as e:
            trust_state.load(path)
        assert e.value.id == "trust.state-damaged"


def test_old_list_pasted_into_a_newer_memory_is_damaged(case: Case, path: Path) -> None:
    """Two files each of which was valid once: the parts do not make a third."""
    newer, older = case.decide().learned, case.state
    trust_state.save(path, newer)
    new = path.read_bytes()
    trust_state.save(path, older)
    old = path.read_bytes()
    floor = b'"clock-floor":'
    cut_new, cut_old = new.index(floor), old.index(floor)
    path.write_bytes(new[:cut_new] + old[cut_old:])
    with pytest.raises(TrustError) as e:
        trust_state.load(path)
    assert e.value.id == "trust.state-damaged"


def test_link_or_folder_in_its_place_is_refused(case: Case, path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(SealiftError):
        trust_state.load(path)


def test_failed_save_keeps_the_old_one(
    case: Case, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust_state.save(path, case.state)
    for name in ("write", "fsync", "rename"):
        with monkeypatch.context() as m:
            m.setattr(os, name, _no_space)
            with pytest.raises(SealiftError) as e:
                trust_state.save(path, case.decide().learned)
            assert e.value.id == "disk.full"
        assert trust_state.load(path) == case.state
        assert [p.name for p in path.parent.iterdir()] == ["trust.json"]


def _no_space(*_args: object) -> None:
    raise OSError(28, "No space left on device")


def test_memory_holds_nothing_that_the_builder_signed(case: Case) -> None:
    learned: Remembered = case.decide().learned
    for name in ("timestamp.json", "2.snapshot.json"):
        signature = case.files.metadata.get(name, b"")[:200]
        if signature:
            assert signature not in learned.root + (learned.targets or b"")
