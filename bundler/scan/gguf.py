"""A bounded check of GGUF files, versions 2 and 3: the header is read, the weights are not.

Format: ggml's docs/gguf.md. Keys and values, then the tensor table, then the weights, aligned. As
with safetensors, a table that passes proves that every byte after it belongs to one tensor or is
padding, so reading the header covers the file. Every count is held against the bytes that are left
before anything is read for it: the work is bounded by `bounds`, whatever the file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bundler.scan import bounds
from bundler.scan.ggufread import STRING, Header, open_header
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import Fault, finding, shown
from bundler.scan.text import hidden_in

NAME = "gguf"
# ggml's type numbers: elements and bytes in one block.
# fmt: off
_BLOCKS = {
    0: (1, 4), 1: (1, 2), 30: (1, 2), 28: (1, 8),  # F32 F16 BF16 F64
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8),  # I8 I16 I32 I64
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),  # Q4_0 Q4_1 Q5_0 Q5_1 Q8_0
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176),  # Q2_K Q3_K Q4_K Q5_K
    14: (256, 210), 15: (256, 292),  # Q6_K Q8_K
    16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50),  # IQ2_XXS IQ2_XS IQ3_XXS IQ1_S
    20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),  # IQ4_NL IQ3_S IQ2_S IQ4_XS
    29: (256, 56), 34: (256, 54), 35: (256, 66),  # IQ1_M TQ1_0 TQ2_0
    39: (32, 17), 40: (64, 36), 41: (128, 18),  # MXFP4 NVFP4 Q1_0
}
# fmt: on
_ALIGNMENT_KEY = "general.alignment"
_TEMPLATE_KEY = "tokenizer.chat_template"
_DEFAULT_ALIGNMENT = 32
_UINT32 = 4


@dataclass
class Contents:
    """What the header says: chat templates by key, number of keys and of tensors."""

    templates: dict[str, str] = field(default_factory=dict)
    alignment: int = _DEFAULT_ALIGNMENT
    keys: set[str] = field(default_factory=set)
    tensors: int = 0


class GgufScanner:
    """Reads headers of GGUF files, and looks for hidden characters in their chat templates."""

    name = NAME

    def version(self) -> str:
        """The check is ours; its number goes up when it refuses more or less."""
        return "gguf-header 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up what is GGUF by content or by name."""
        result = ScanResult()
        for subject in artifact:
            if subject.in_tree and _is_ours(subject):
                _scan_one(subject, result)
        return result


def _is_ours(subject: Subject) -> bool:
    return subject.kind == "gguf" or subject.path.suffix.lower() == ".gguf"


def _scan_one(subject: Subject, result: ScanResult) -> None:
    try:
        contents = check(subject.file)
    except Fault as e:
        result.findings.append(finding(NAME, subject, e.id, "high", e.message))
        result.unscanned.append(Unscanned(subject.path, "its header is not sound"))
        return
    for key, template in contents.templates.items():
        for id, severity, text in hidden_in(template, is_template=True):
            message = f"in {shown(key)}: {text}"
            result.findings.append(finding(NAME, subject, id, severity, message))
    result.covered.add(subject.path)


def check(path: Path) -> Contents:
    """Read the header of the file at `path`. Raises Fault; OSError when it cannot be read."""
    with open_header(path) as header:
        tensors, keys = _counts(header)
        contents = Contents(tensors=tensors)
        for _ in range(keys):
            _read_pair(header, contents)
        spans = _read_table(header, contents)
        _check_layout(spans, header, contents.alignment)
    return contents


def _counts(header: Header) -> tuple[int, int]:
    if header.take(4) != b"GGUF":
        raise Fault("gguf.magic", "the file does not begin with 'GGUF'")
    version = header.uint(4)
    if version not in (2, 3):
        raise Fault("gguf.version", f"version {version}, in little-endian, is not 2 or 3")
    tensors, keys = header.uint(8), header.uint(8)
    # Least sizes: a tensor's name length, rank, type and offset; a key's length, type and value.
    header.expect("tensors", tensors, 24, bounds.MAX_GGUF_TENSORS)
    header.expect("keys", keys, 13, bounds.MAX_GGUF_KEYS)
    if tensors == 0:
        raise Fault("gguf.empty", "the file names no tensor")
    return tensors, keys


def _read_pair(header: Header, contents: Contents) -> None:
    key = header.text(bounds.MAX_GGUF_KEY_BYTES)
    if key in contents.keys:
        raise Fault("gguf.duplicate-key", f"the key {shown(key)} stands there twice")
    contents.keys.add(key)
    type = header.uint(4)
    if key == _ALIGNMENT_KEY:
        if type != _UINT32:
            raise Fault("gguf.alignment", f"the alignment has the type {type}, not uint32")
        contents.alignment = _alignment(header.uint(4))
    elif type == STRING and key.startswith(_TEMPLATE_KEY):
        contents.templates[key] = header.text(bounds.MAX_GGUF_HEADER_BYTES)
    else:
        header.skip_value(type, 0)


def _alignment(value: int) -> int:
    if value < 8 or value > bounds.MAX_GGUF_ALIGNMENT or value & (value - 1):
        raise Fault("gguf.alignment", f"an alignment of {value} bytes")
    return value


def _read_table(header: Header, contents: Contents) -> list[tuple[int, int, str]]:
    """(offset, bytes, name) of every tensor, offsets counted from the start of the weights."""
    spans: list[tuple[int, int, str]] = []
    names: set[str] = set()
    for _ in range(contents.tensors):
        name = header.text(bounds.MAX_GGUF_TENSOR_NAME_BYTES)
        if name in names or not name.isprintable():
            raise Fault("gguf.tensor-name", f"the tensor name {shown(name)} is not acceptable")
        names.add(name)
        size = _tensor_bytes(header, name)
        offset = header.uint(8)
        if offset % contents.alignment:
            raise Fault("gguf.alignment", f"tensor {shown(name)} is not aligned")
        spans.append((offset, size, name))
    return spans


def _tensor_bytes(header: Header, name: str) -> int:
    rank = header.uint(4)
    if not 1 <= rank <= bounds.MAX_GGUF_DIMS:
        raise Fault("gguf.shape", f"tensor {shown(name)} has {rank} dimensions")
    shape = [header.uint(8) for _ in range(rank)]
    type = header.uint(4)
    if type not in _BLOCKS:
        raise Fault("gguf.tensor-type", f"tensor {shown(name)} has the unknown type {type}")
    elements = 1
    for n in shape:
        elements *= n
        if n == 0 or elements > bounds.MAX_TENSOR_BITS:
            raise Fault("gguf.shape", f"tensor {shown(name)} has an unusable shape")
    per_block, block_bytes = _BLOCKS[type]
    if shape[0] % per_block:
        raise Fault("gguf.shape", f"a row of tensor {shown(name)} is not whole blocks")
    return elements // per_block * block_bytes


def _check_layout(spans: list[tuple[int, int, str]], header: Header, alignment: int) -> None:
    start = _aligned(header.at, alignment)
    at = 0
    for offset, size, name in sorted(spans):
        if offset < at:
            raise Fault("gguf.overlap", f"tensor {shown(name)} overlaps another")
        if offset > _aligned(at, alignment):
            raise Fault("gguf.hole", f"bytes before tensor {shown(name)} belong to none")
        at = offset + size
    if start + at > header.size:
        raise Fault("gguf.truncated", f"the tensors end at {start + at}, the file at {header.size}")
    if header.size > start + _aligned(at, alignment):
        raise Fault("gguf.trailing", f"{header.size - start - at} bytes follow the last tensor")


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
