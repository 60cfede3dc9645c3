"""Safetensors: what the library accepts and what it refuses, both refused here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundler.scan import bounds
from bundler.scan.safetensors import SafetensorsScanner
from tests.unit.scan.makers import ids, look, safetensors, severity, sound_safetensors, tensor

A = {"a": tensor(0, 8)}


def test_a_file_of_the_library_itself_is_covered(tmp_path: Path) -> None:
    numpy = pytest.importorskip("numpy")
    save = pytest.importorskip("safetensors.numpy").save
    arrays = {"x": numpy.ones((3, 5), "float32"), "y": numpy.zeros((0, 4), "int8")}
    result = look(SafetensorsScanner(), tmp_path, {"m.safetensors": save(arrays, {"k": "v"})})
    assert result.covered and not result.findings and not result.unscanned


TWICE = b'{"a":%s,"a":%s}' % ((json.dumps(tensor(0, 8)).encode(),) * 2)
HUGE = {"__metadata__": {"k": "x" * (bounds.MAX_SAFETENSORS_METADATA_CHARS + 1)}, **A}
DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (safetensors({"a": tensor(0, 8), "b": tensor(4, 8)}), "safetensors.overlap"),
        (safetensors({"a": tensor(0, 4), "b": tensor(6, 8)}), "safetensors.hole"),
        (safetensors({"a": tensor(2, 8)}), "safetensors.hole"),
        (safetensors(A, b"\x00" * 9), "safetensors.trailing"),
        (safetensors(A, b"\x00" * 7), "safetensors.truncated"),
        (safetensors({}), "safetensors.empty"),
        (safetensors({"__metadata__": {"a": "b"}}, b""), "safetensors.empty"),
        (safetensors({"a": tensor(0, 8, "F33")}), "safetensors.dtype"),
        (safetensors({"a": tensor(0, 8, shape=[2**63, 2])}), "safetensors.header"),
        (safetensors({"a": tensor(0, 0, shape=[2**50, 2**50, 0])}, b""), "safetensors.shape"),
        (safetensors({"a": tensor(0, 8, shape=[2**40, 2**40])}), "safetensors.shape"),
        (safetensors({"a": tensor(0, 8, shape=[-8])}), "safetensors.shape"),
        (safetensors({"a": tensor(0, 8, shape=[7])}), "safetensors.shape"),
        (safetensors({"a": tensor(0, 8, shape=[True] * 3)}), "safetensors.shape"),
        (safetensors({"a": tensor(8, 0, shape=[8])}), "safetensors.offsets"),
        (safetensors({"a": {**tensor(0, 8), "data_offsets": ["0", 8]}}), "safetensors.offsets"),
        (safetensors({"a": {**tensor(0, 8), "more": 1}}), "safetensors.fields"),
        (safetensors({"a": 5}), "safetensors.fields"),
        (safetensors({"../a": tensor(0, 8)}), "safetensors.name"),
        (safetensors({"/a": tensor(0, 8)}), "safetensors.name"),
        (safetensors({"a\u202eb": tensor(0, 8)}), "safetensors.name"),
        (safetensors({"": tensor(0, 8)}), "safetensors.name"),
        (safetensors(None, b"\x00" * 8, TWICE), "safetensors.duplicate-name"),
        (safetensors(HUGE), "safetensors.metadata"),
        (safetensors({"__metadata__": {"a": 1}, **A}), "safetensors.metadata"),
        (safetensors(None, b"", b" " + json.dumps(A).encode()), "safetensors.header"),
        (safetensors(None, b"", b"[]"), "safetensors.header"),
        (safetensors(None, b"", b"\xff\xfe{}"), "safetensors.header"),
        (safetensors(None, b"", DEEP), "safetensors.header"),
        (safetensors(None, b"\x00" * 8, json.dumps(A).encode() + b"\x00"), "safetensors.header"),
        (b"\x00\x00\x00", "safetensors.header"),
        (b"\xff" * 8 + b"{}", "safetensors.header-size"),
        ((1 << 20).to_bytes(8, "little") + b"{}", "safetensors.header-size"),
    ],
)
def test_unsound_header_is_refused(tmp_path: Path, data: bytes, id: str) -> None:
    result = look(SafetensorsScanner(), tmp_path, {"m.safetensors": data})
    assert ids(result) == {id}
    assert severity(result, id) == "high"
    assert not result.covered
    assert len(result.unscanned) == 1


def test_header_over_the_bound_is_refused_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    size = bounds.MAX_SAFETENSORS_HEADER_BYTES + 1
    with file.open("wb") as out:
        out.write(size.to_bytes(8, "little") + b"{")
        out.truncate(8 + size)
    data = {"m.safetensors": file.read_bytes()}
    result = look(SafetensorsScanner(), tmp_path / "in", data)
    assert ids(result) == {"safetensors.header-size"}


def index(weight_map: Any) -> bytes:
    return json.dumps({"metadata": {"total_size": 16}, "weight_map": weight_map}).encode()


def shards(tmp_path: Path, weight_map: Any, **files: bytes) -> set[str]:
    tree = {f"{name}.safetensors": data for name, data in files.items()}
    tree["model.safetensors.index.json"] = index(weight_map)
    return ids(look(SafetensorsScanner(), tmp_path, tree))


ONE, TWO = sound_safetensors("a", "b"), sound_safetensors("c")
MAP = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}


def test_index_that_agrees_with_its_shards_passes(tmp_path: Path) -> None:
    assert shards(tmp_path, MAP, one=ONE, two=TWO) == set()


def test_orphan_shard_is_refused(tmp_path: Path) -> None:
    found = shards(tmp_path, MAP, one=ONE, two=TWO, three=sound_safetensors("d"))
    assert found == {"safetensors.orphan-shard"}


def test_missing_shard_is_refused(tmp_path: Path) -> None:
    assert shards(tmp_path, MAP, one=ONE) == {"safetensors.missing-shard"}


def test_shard_with_a_tensor_that_the_index_leaves_out_is_refused(tmp_path: Path) -> None:
    more = sound_safetensors("c", "d")
    assert shards(tmp_path, MAP, one=ONE, two=more) == {"safetensors.index-disagrees"}


def test_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    twice = sound_safetensors("c", "a")
    assert shards(tmp_path, MAP, one=ONE, two=twice) == {"safetensors.index-disagrees"}


def test_tensor_twice_without_an_index_is_refused(tmp_path: Path) -> None:
    files = {"one.safetensors": ONE, "two.safetensors": sound_safetensors("a")}
    assert ids(look(SafetensorsScanner(), tmp_path, files)) == {"safetensors.tensor-twice"}


@pytest.mark.parametrize("weight_map", [None, [], {}, {"a": 1}, {"a": "../one.safetensors"}])
def test_index_that_names_no_shards_is_refused(tmp_path: Path, weight_map: Any) -> None:
    assert shards(tmp_path, weight_map, one=ONE)
