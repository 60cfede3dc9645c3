"""Plain files that a request pins by address and digest: vocabularies and kernels for a GPU.

A person named each of them with its SHA-256, so the gate asks one thing: whether it is what such
files are. A `.tiktoken` vocabulary is lines of a token in base64 and its rank, each once. A cubin
is an ELF file for NVIDIA's processors alone: no host can run it, the GPU will; officers are told.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from bundler.scan import bounds
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import Fault, finding

NAME = "plain"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_NO_BYTES_IN_FILE = 8


class PlainScanner:
    """Reads vocabularies, and headers of kernels, in artifacts of plain files."""

    name = NAME

    def version(self) -> str:
        """The rules are ours; the number goes up when they change."""
        return "plain-files 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up texts and kernels of an artifact of plain files."""
        result = ScanResult()
        for subject in artifact:
            if subject.artifact_kind != "files" or subject.kind not in ("text", "empty", "cubin"):
                continue
            try:
                _check(subject, result)
                result.covered.add(subject.path)
            except Fault as e:
                result.findings.append(finding(NAME, subject, e.id, "high", e.message))
                result.unscanned.append(Unscanned(subject.path, "it is not what its name says"))
        return result


def _check(subject: Subject, result: ScanResult) -> None:
    if subject.kind == "cubin":
        check_cubin(subject.file)
        text = "machine code for a GPU: nothing here can say what it computes"
        result.findings.append(finding(NAME, subject, "files.gpu-code", "low", text))
    elif subject.path.suffix.lower() == ".tiktoken":
        check_vocabulary(subject.file)


def check_vocabulary(path: Path) -> None:
    """Every line a token and its rank, no token and no rank twice. Raises Fault."""
    tokens: set[bytes] = set()
    ranks: set[int] = set()
    with path.open("rb") as file:
        data = file.read(bounds.MAX_TEXT_BYTES + 1)
    if len(data) > bounds.MAX_TEXT_BYTES:
        raise Fault("tokenizer.malformed", "the vocabulary is too long")
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        cells = line.split(b" ")
        try:
            token, rank = base64.b64decode(cells[0], validate=True), int(cells[1])
        except (binascii.Error, ValueError, IndexError) as e:
            raise Fault("tokenizer.malformed", f"line {number} is no token with its rank") from e
        if len(cells) != 2 or token in tokens or rank in ranks or rank < 0:
            raise Fault("tokenizer.not-bijective", f"line {number} repeats a token or a rank")
        tokens.add(token)
        ranks.add(rank)
    if not tokens:
        raise Fault("tokenizer.malformed", "the vocabulary is empty")


def check_cubin(path: Path) -> None:
    """The sections of a 64-bit ELF lie within the file. Raises Fault `files.cubin`."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or head[4:6] != b"\x02\x01":
            raise Fault("files.cubin", "it is no 64-bit ELF file")
        fields = _HEADER.unpack(head)
        start, entry_size, count = fields[6], fields[11], fields[12]
        if entry_size != _SECTION.size or not count > 0 or start + count * entry_size > size:
            raise Fault("files.cubin", "its sections do not lie in the file")
        file.seek(start)
        for _ in range(count):
            section = _SECTION.unpack(file.read(_SECTION.size))
            if section[1] != _NO_BYTES_IN_FILE and section[4] + section[5] > size:
                raise Fault("files.cubin", "its sections do not lie in the file")
