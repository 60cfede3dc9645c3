"""GGUF: counts, lengths, nesting and layout that no honest writer makes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from bundler.scan.gguf import GgufScanner, check
from tests.unit.scan.makers import (
    gguf,
    gguf_tensor,
    gguf_value,
    ids,
    look,
    severity,
    text,
)


def array(type: int, count: int, body: bytes = b"") -> bytes:
    return struct.pack("<IIQ", 9, type, count) + body


NAME = ("general.name", gguf_value("tiny"))
# Nine bytes a level: the deepest that fits many levels into few bytes.
NESTED = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 5000 + struct.pack("<IQ", 0, 0)
# The shape of the file on which a well-known reader never returns: one array, an endless count.
ENDLESS = b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + text("a") + array(9, 2**62) + b"\x00" * 4


@pytest.mark.parametrize("version", [2, 3])
def test_sound_file_is_covered(tmp_path: Path, version: int) -> None:
    pairs = [NAME, ("l", gguf_value(["a", "b"])), ("general.alignment", gguf_value(64))]
    data = gguf(pairs, version=version, alignment=64)
    result = look(GgufScanner(), tmp_path, {"m.gguf": data})
    assert result.covered and not result.findings and not result.unscanned


def test_two_tensors_with_padding_between_are_covered(tmp_path: Path) -> None:
    data = gguf(tensors=[gguf_tensor("a", 0, (5,)), gguf_tensor("b", 32)], data=b"\x00" * 64)
    assert look(GgufScanner(), tmp_path, {"m.gguf": data}).covered


def pair(type: int, body: bytes) -> bytes:
    return gguf([("k", struct.pack("<I", type) + body)])


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"GGUF", "gguf.count"),
        (b"GGML" + gguf()[4:], "gguf.magic"),
        (gguf(version=1), "gguf.version"),
        (gguf(version=3 << 24), "gguf.version"),
        (gguf(counts=(2**63, 0)), "gguf.count"),
        (gguf(counts=(1, 2**63)), "gguf.count"),
        (gguf(counts=(5, 0)), "gguf.count"),
        (gguf(tensors=[], data=b""), "gguf.empty"),
        (ENDLESS, "gguf.count"),
        (pair(8, struct.pack("<Q", 2**64 - 1)), "gguf.count"),
        (gguf([("k", array(8, 2**61))]), "gguf.count"),
        (gguf([("k", array(0, 2**32))]), "gguf.count"),
        (gguf([("k", NESTED)]), "gguf.nesting"),
        (pair(13, b""), "gguf.type"),
        (gguf([("k", array(99, 1, b"\x00" * 8))]), "gguf.type"),
        (gguf([NAME, NAME]), "gguf.duplicate-key"),
        (gguf([("general.alignment", gguf_value(33))]), "gguf.alignment"),
        (gguf([("general.alignment", gguf_value(0))]), "gguf.alignment"),
        (gguf([("general.alignment", gguf_value(1 << 30))]), "gguf.alignment"),
        (gguf([("general.alignment", gguf_value("32"))]), "gguf.alignment"),
        (gguf(tensors=[gguf_tensor("a", 1)]), "gguf.alignment"),
        (gguf(tensors=[gguf_tensor("a", 1 << 40)]), "gguf.hole"),
        (gguf(tensors=[gguf_tensor("a", 0), gguf_tensor("b", 64)], data=b"\x00" * 96), "gguf.hole"),
        (gguf(tensors=[gguf_tensor("a", 0), gguf_tensor("b", 0)]), "gguf.overlap"),
        (gguf(tensors=[gguf_tensor("a", 0)] * 2), "gguf.tensor-name"),
        (gguf(tensors=[gguf_tensor("a\n", 0)]), "gguf.tensor-name"),
        (gguf(tensors=[gguf_tensor("a", 0, rank=0)]), "gguf.shape"),
        (gguf(tensors=[gguf_tensor("a", 0, rank=2**32 - 1)]), "gguf.shape"),
        (gguf(tensors=[gguf_tensor("a", 0, (2**63, 2**63))]), "gguf.shape"),
        (gguf(tensors=[gguf_tensor("a", 0, (0,))]), "gguf.shape"),
        (gguf(tensors=[gguf_tensor("a", 0, (8,), type=2)]), "gguf.shape"),
        (gguf(tensors=[gguf_tensor("a", 0, type=4096)]), "gguf.tensor-type"),
        (gguf(data=b"\x00" * 31), "gguf.truncated"),
        (gguf(data=b"\x00" * 64), "gguf.trailing"),
        (gguf([("k" * 70_000, gguf_value(1))]), "gguf.count"),
    ],
)
def test_unsound_header_is_refused(tmp_path: Path, data: bytes, id: str) -> None:
    result = look(GgufScanner(), tmp_path, {"m.gguf": data})
    assert ids(result) == {id}
    assert severity(result, id) == "high"
    assert not result.covered
    assert len(result.unscanned) == 1


def test_hidden_characters_in_a_chat_template_are_refused(tmp_path: Path) -> None:
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        data = gguf([(key, gguf_value("{{ a\u202e }}"))])
        result = look(GgufScanner(), tmp_path, {"m.gguf": data})
        assert severity(result, "text.bidirectional") == "high"


def test_chat_templates_are_told(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(gguf([("tokenizer.chat_template", gguf_value("{{ a }}"))]))
    assert check(file).templates == {"tokenizer.chat_template": "{{ a }}"}
