"""The ledger: every tampering is named by its line, a torn end is repaired and recorded."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airgap.errors import IntegrityError
from airgap.host import ledger


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "ledger.jsonl"
    for n in range(4):
        ledger.append(file, "switch", {"name": "m", "version": str(n)}, now=1000 + n)
    return file


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def assert_broken_at(path: Path, line: int) -> None:
    with pytest.raises(IntegrityError) as e:
        ledger.read(path)
    assert e.value.id == "ledger.broken"
    assert f"line {line} " in e.value.what


def test_entries_chain_by_the_hash_of_the_line_before(path: Path) -> None:
    raw = lines(path)
    chain = ledger.read(path)
    assert [e.seq for e in chain.entries] == [0, 1, 2, 3]
    assert chain.entries[0].prev == ledger.GENESIS
    for before, entry in zip(raw, chain.entries[1:], strict=False):
        assert entry.prev == hashlib.sha256(before).hexdigest()
    assert ledger.head(path) == hashlib.sha256(raw[-1]).hexdigest() == chain.entries[-1].hash


def test_absent_ledger_is_empty(tmp_path: Path) -> None:
    chain = ledger.read(tmp_path / "none")
    assert (chain.entries, chain.head) == ((), ledger.GENESIS)


@pytest.mark.parametrize("line", [1, 2, 3])
def test_changed_line_is_refused_at_the_one_after(path: Path, line: int) -> None:
    raw = lines(path)
    raw[line - 1] = raw[line - 1].replace(b'"time":10', b'"time":20')
    path.write_bytes(b"".join(raw))
    assert_broken_at(path, line + 1)


def test_removed_line_is_refused(path: Path) -> None:
    raw = lines(path)
    path.write_bytes(b"".join(raw[:1] + raw[2:]))
    assert_broken_at(path, 2)


def test_exchanged_lines_are_refused(path: Path) -> None:
    raw = lines(path)
    path.write_bytes(b"".join([raw[0], raw[2], raw[1], raw[3]]))
    assert_broken_at(path, 2)


def test_line_in_another_form_is_refused(path: Path) -> None:
    raw = lines(path)
    path.write_bytes(raw[0].replace(b'":', b'": ') + b"".join(raw[1:]))
    assert_broken_at(path, 1)


def test_unknown_key_is_refused(path: Path) -> None:
    raw = lines(path)
    path.write_bytes(raw[0].replace(b'{"data"', b'{"a":1,"data"', 1) + b"".join(raw[1:]))
    assert_broken_at(path, 1)


def test_nothing_is_appended_to_a_broken_chain(path: Path) -> None:
    raw = lines(path)
    path.write_bytes(b"".join(raw[:1] + raw[2:]))
    before = path.read_bytes()
    with pytest.raises(IntegrityError):
        ledger.append(path, "switch", {"name": "m", "version": "9"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_torn_last_line_is_cut_off_and_recorded(path: Path, kept: int) -> None:
    raw = lines(path)
    torn = raw[3][:kept]
    path.write_bytes(b"".join(raw[:3]) + torn)
    assert len(ledger.read(path).entries) == 3
    ledger.append(path, "switch", {"name": "m", "version": "4"})
    chain = ledger.read(path)
    assert [e.event for e in chain.entries[3:]] == ["ledger-repaired", "switch"]
    assert chain.entries[3].data["bytes"] == str(len(torn))
    assert chain.torn == 0


def test_last_finds_the_newest_that_matches(path: Path) -> None:
    ledger.append(path, "switch", {"name": "other", "version": "7"})
    found = ledger.last(ledger.read(path), "switch", name="m")
    assert found is not None and found.data["version"] == "3"
    assert ledger.last(ledger.read(path), "stop") is None
