"""Plain files: vocabularies and kernels for a GPU, sound and spoilt."""

from __future__ import annotations

import base64
import struct
from pathlib import Path

import pytest

from bundler.scan.gate import scan
from bundler.scan.plain import PlainScanner
from tests.unit.scan.makers import look, severity
from tests.unit.scan.test_gate import artifact


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + b" %d\n" % rank


SOUND = line(b"a", 0) + line(b"b", 1) + line(b"ab", 2)


def cubin(section_offset: int = 64, section_size: int = 0, count: int = 1) -> bytes:
    """A 64-bit ELF header for NVIDIA's machine with one section."""
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\x00")
    head = struct.pack("<HHIQQQIHHHHHH", 2, 190, 1, 0, 0, 64, 0, 64, 0, 0, 64, count, 0)
    return (
        ident
        + head
        + struct.pack("<IIQQQQIIQQ", 0, 1, 0, 0, section_offset, section_size, *[0] * 4)
    )


def test_sound_vocabulary_is_covered_without_findings(tmp_path: Path) -> None:
    result = look(PlainScanner(), tmp_path, {"o200k.tiktoken": SOUND}, "files")
    assert result.findings == [] and len(result.covered) == 1


@pytest.mark.parametrize(
    ("id", "data"),
    [
        ("tokenizer.not-bijective", SOUND + line(b"a", 3)),
        ("tokenizer.not-bijective", SOUND + line(b"c", 2)),
        ("tokenizer.not-bijective", SOUND + line(b"c", -1)),
        ("tokenizer.malformed", SOUND + b"not base64! 3\n"),
        ("tokenizer.malformed", SOUND + b"YQ==\n"),
        ("tokenizer.malformed", b"\n"),
        ("tokenizer.malformed", b""),
    ],
)
def test_spoilt_vocabulary_is_refused(tmp_path: Path, id: str, data: bytes) -> None:
    result = look(PlainScanner(), tmp_path, {"x.tiktoken": data}, "files")
    assert severity(result, id) == "high"
    assert result.covered == set() and len(result.unscanned) == 1


def test_kernel_for_a_gpu_is_told_and_covered(tmp_path: Path) -> None:
    findings, coverage = scan([artifact(tmp_path, {"k.cubin": cubin()}, "files")])
    assert [(f.id, f.severity) for f in findings.findings] == [("files.gpu-code", "low")]
    assert [(c.kind, c.verdict) for c in coverage.files] == [("cubin", "covered")]


@pytest.mark.parametrize(
    "data", [cubin(section_size=1000), cubin(count=9), cubin(count=0), cubin()[:40]]
)
def test_kernel_that_points_out_of_its_file_is_refused(tmp_path: Path, data: bytes) -> None:
    result = look(PlainScanner(), tmp_path, {"k.cubin": data}, "files")
    assert severity(result, "files.cubin") == "high"
    assert result.covered == set()


def test_library_for_the_host_is_no_plain_file(tmp_path: Path) -> None:
    elf = b"\x7fELF\x02\x01\x01".ljust(16, b"\x00") + struct.pack("<HH", 3, 62) + b"\x00" * 100
    _, coverage = scan([artifact(tmp_path, {"k.cubin": elf}, "files")])
    assert [c.verdict for c in coverage.files] == ["not-covered"]
