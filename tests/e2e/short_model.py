"""The real model with most of its layers taken out: the same words and file format, a fraction of
the arithmetic, no sense. For a machine that counts some thousand times slower than this one."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field
from pathlib import Path

from bundler.scan.ggufread import Header, open_header

_KEY = "llama.block_count"
_UINT32 = 4
_ALIGNMENT = 32  # where the file does not say otherwise, and this one does not


@dataclass(frozen=True)
class Tensor:
    """`info`: its entry up to the offset, as it stands in the file."""

    name: str
    info: bytes
    offset: int


@dataclass
class Parsed:
    """What a file holds. `pairs`: every key with its value, as they stand in it."""

    data: bytes
    pairs: list[bytes] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    start: int = 0


def shorten(source: Path, target: Path, layers: int) -> Path:
    """Write `target`: `source` with its first `layers` layers only."""
    if not target.exists():
        parsed = _parse(source, layers)
        part = target.with_suffix(".part")
        part.write_bytes(_written(parsed, layers))
        part.rename(target)
    return target


def _parse(source: Path, layers: int) -> Parsed:
    out = Parsed(source.read_bytes())
    with open_header(source) as header:
        header.skip(8)
        tensors, keys = header.uint(8), header.uint(8)
        for _ in range(keys):
            out.pairs.append(_pair(header, out.data, layers))
        for _ in range(tensors):
            out.tensors.append(_tensor(header, out.data))
        out.start = _aligned(header.at)
    return out


def _pair(header: Header, data: bytes, layers: int) -> bytes:
    begin = header.at
    key = header.text(1000)
    type = header.uint(4)
    before = header.at
    header.skip_value(type, 0)
    if key != _KEY:
        return data[begin : header.at]
    assert type == _UINT32
    return data[begin:before] + struct.pack("<I", layers)


def _tensor(header: Header, data: bytes) -> Tensor:
    begin = header.at
    name = header.text(1000)
    header.skip(8 * header.uint(4) + 4)
    return Tensor(name, data[begin : header.at], header.uint(8))


def _written(parsed: Parsed, layers: int) -> bytes:
    ends = {t.offset: 0 for t in parsed.tensors} | {len(parsed.data) - parsed.start: 0}
    order = sorted(ends)
    after = dict(itertools.pairwise(order))
    table, weights, at = b"", [], 0
    kept = [t for t in parsed.tensors if _layer(t.name) < layers]
    for tensor in sorted(kept, key=lambda t: t.offset):
        begin, end = (parsed.start + n for n in (tensor.offset, after[tensor.offset]))
        table += tensor.info + struct.pack("<Q", at)
        weights.append(parsed.data[begin:end])
        at += end - begin
        assert at % _ALIGNMENT == 0
    head = b"GGUF" + struct.pack("<IQQ", 3, len(kept), len(parsed.pairs))
    head += b"".join(parsed.pairs) + table
    return head + bytes(_aligned(len(head)) - len(head)) + b"".join(weights)


def _layer(name: str) -> int:
    """The number of `blk.N.something`; -1 for what belongs to no layer."""
    return int(name.split(".")[1]) if name.startswith("blk.") else -1


def _aligned(at: int) -> int:
    return -(-at // _ALIGNMENT) * _ALIGNMENT
