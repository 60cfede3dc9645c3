"""Whatever the bytes: no scanner raises, hangs, or calls covered what it did not understand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundler.scan.config import ConfigScanner
from bundler.scan.content import ContentScanner
from bundler.scan.gguf import GgufScanner
from bundler.scan.interface import Scanner
from bundler.scan.safetensors import SafetensorsScanner
from bundler.scan.sniff import sniff
from bundler.scan.text import TextScanner
from bundler.scan.wheel import WheelScanner
from tests.unit.scan.makers import (
    WHEEL_NAME,
    gguf,
    gguf_value,
    look,
    sound_safetensors,
    wheel,
)

CONFIG = json.dumps({"a": {"auto_map": {"b": "c"}}, "x_path": "/y", "n": [1, 2.5, None]}).encode()
SCANNERS: dict[str, tuple[Scanner, str, bytes, str]] = {
    "safetensors": (
        SafetensorsScanner(),
        "m.safetensors",
        sound_safetensors("a", "b"),
        "model",
    ),
    "gguf": (
        GgufScanner(),
        "m.gguf",
        gguf([("k", gguf_value(["x", "y"])), ("t", gguf_value("z"))]),
        "model",
    ),
    "config": (ConfigScanner(), "config.json", CONFIG, "model"),
    "text": (TextScanner(), "README.md", b"# hf_abc \xc3\xbc\n", "model"),
    "content": (ContentScanner(), "m.bin", b"cposix\nsystem\n(tR.", "model"),
    "wheel": (WheelScanner(), WHEEL_NAME, wheel(), "wheels"),
}
QUIET = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# (place, bytes put there, bytes taken away); places wrap around.
EDITS = st.lists(
    st.tuples(st.integers(0, 1 << 20), st.binary(max_size=9), st.integers(0, 9)),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, edits: list[tuple[int, bytes, int]]) -> bytes:
    for place, put, take in edits:
        at = place % (len(data) + 1)
        data = data[:at] + put + data[at + take :]
    return data


@pytest.mark.parametrize("which", SCANNERS)
@QUIET
@given(edits=EDITS)
def test_edited_file_is_judged(
    tmp_path: Path, which: str, edits: list[tuple[int, bytes, int]]
) -> None:
    scanner, name, sound, kind = SCANNERS[which]
    result = look(scanner, tmp_path, {name: edited(sound, edits)}, kind)
    refused = {u.path for u in result.unscanned}
    assert not refused & result.covered
    assert all(f.message and str(tmp_path) not in f.message for f in result.findings)


@pytest.mark.parametrize("which", SCANNERS)
@QUIET
@given(data=st.binary(max_size=300))
def test_any_bytes_are_judged(tmp_path: Path, which: str, data: bytes) -> None:
    scanner, name, _, kind = SCANNERS[which]
    result = look(scanner, tmp_path, {name: data}, kind)
    assert not {u.path for u in result.unscanned} & result.covered


@pytest.mark.parametrize("which", ["safetensors", "gguf", "wheel"])
@QUIET
@given(cut=st.integers(1, 10_000))
def test_file_cut_short_is_never_covered(tmp_path: Path, which: str, cut: int) -> None:
    scanner, name, sound, kind = SCANNERS[which]
    result = look(scanner, tmp_path, {name: sound[: -(cut % len(sound)) or -1]}, kind)
    assert not result.covered and result.findings


@QUIET
@given(data=st.binary(max_size=200), start=st.sampled_from([b"", b"c", b"(S'", b"\x80\x04", b"X"]))
def test_any_bytes_are_told(tmp_path: Path, data: bytes, start: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(start + data)
    assert sniff(file)
