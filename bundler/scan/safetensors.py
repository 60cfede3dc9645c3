"""Strict check of safetensors files: the header is read, the weights are not.

The format (its README, "Format"): 8 bytes of header length, little-endian; the header, one JSON
object padded with spaces; then the bytes of the tensors. A header that passes proves that every
byte after it belongs to exactly one tensor of plain numbers, so nothing else can lie in the file.
That is why reading the header covers the file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from airgap.errors import FormatError
from airgap.format import canonical
from bundler.scan import bounds
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import Fault, finding, shown
from bundler.scan.shards import check_shards

NAME = "safetensors"
# The `Dtype` enumeration of safetensors 0.8, in bits.
_DTYPE_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}
_TENSOR_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True)
class _Tensor:
    name: str
    begin: int
    end: int


class SafetensorsScanner:
    """Reads headers of safetensors files, and holds indexes against their shards."""

    name = NAME

    def version(self) -> str:
        """The check is ours; its number goes up when it refuses more or less."""
        return "safetensors-header 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up what is safetensors by content or by name."""
        result = ScanResult()
        names: dict[PurePosixPath, frozenset[str]] = {}
        for subject in artifact:
            if not subject.in_tree or not _is_ours(subject):
                continue
            try:
                names[subject.path] = check(subject.file)
                result.covered.add(subject.path)
            except Fault as e:
                result.findings.append(finding(NAME, subject, e.id, "high", e.message))
                result.unscanned.append(Unscanned(subject.path, "its header is not sound"))
        check_shards(artifact, names, result)
        return result


def _is_ours(subject: Subject) -> bool:
    return subject.kind == "safetensors" or subject.path.suffix.lower() == ".safetensors"


def check(path: Path) -> frozenset[str]:
    """The names of all tensors in the file at `path`. Raises Fault; OSError when unreadable."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size < 8:
            raise Fault("safetensors.header", f"the file has {size} bytes, a header needs 8")
        length = int.from_bytes(file.read(8), "little")
        if length > bounds.MAX_SAFETENSORS_HEADER_BYTES:
            limit = bounds.MAX_SAFETENSORS_HEADER_BYTES
            raise Fault("safetensors.header-size", f"a header of {length} bytes, over {limit}")
        if length > size - 8:
            raise Fault(
                "safetensors.header-size", f"a header of {length} bytes in a file of {size}"
            )
        header = file.read(length)
    return check_header(header, size - 8 - length)


def check_header(header: bytes, data_bytes: int) -> frozenset[str]:
    """The names of the tensors that `header` lays over `data_bytes` bytes without hole or overlap.

    Raises Fault.
    """
    if not header.startswith(b"{"):
        raise Fault("safetensors.header", "the header does not begin with '{'")
    body = header.rstrip(b" ")
    if not body.endswith(b"}"):
        raise Fault("safetensors.header", "something other than spaces follows the header's '}'")
    try:
        table = canonical.decode(body, max_bytes=bounds.MAX_SAFETENSORS_HEADER_BYTES)
    except FormatError as e:
        id = "safetensors.duplicate-name" if "twice" in e.why else "safetensors.header"
        raise Fault(id, f"the header is not strict JSON at {shown(e.where)}: {e.why}") from e
    _check_metadata(table.pop("__metadata__", {}))
    if not table:
        raise Fault("safetensors.empty", "the header names no tensor")
    tensors = [_tensor(name, entry) for name, entry in table.items()]
    _check_layout(tensors, data_bytes)
    return frozenset(table)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise Fault("safetensors.metadata", "'__metadata__' is not a table of texts")
    size = sum(len(k) + len(v) for k, v in metadata.items())
    if size > bounds.MAX_SAFETENSORS_METADATA_CHARS:
        raise Fault("safetensors.metadata", f"'__metadata__' has {size} characters")


def _tensor(name: str, entry: Any) -> _Tensor:
    _check_name(name)
    if not isinstance(entry, dict) or set(entry) != _TENSOR_KEYS:
        raise Fault("safetensors.fields", f"tensor {shown(name)} has other fields than it may")
    begin, end = _offsets(name, entry["data_offsets"])
    bits = _bits(name, entry["dtype"], entry["shape"])
    if bits != (end - begin) * 8:
        raise Fault(
            "safetensors.shape",
            f"tensor {shown(name)} needs {bits} bits and is given {end - begin} bytes",
        )
    return _Tensor(name, begin, end)


def _check_name(name: str) -> None:
    """Some tools write a file per tensor: a name must not lead out of a folder."""
    parts = name.split("/")
    if (
        not name.isprintable()
        or "\\" in name
        or ".." in parts
        or name.startswith("/")
        or not 0 < len(name) <= bounds.MAX_TENSOR_NAME_CHARS
    ):
        raise Fault("safetensors.name", f"the tensor name {shown(name)} is not acceptable")


def _offsets(name: str, value: Any) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2 and all(type(v) is int for v in value):
        begin, end = value
        if 0 <= begin <= end:
            return begin, end
    raise Fault("safetensors.offsets", f"tensor {shown(name)} has unusable offsets")


def _bits(name: str, dtype: Any, shape: Any) -> int:
    if not isinstance(dtype, str) or dtype not in _DTYPE_BITS:
        raise Fault("safetensors.dtype", f"tensor {shown(name)} has the type {shown(dtype)}")
    if not isinstance(shape, list) or len(shape) > bounds.MAX_TENSOR_RANK:
        raise Fault("safetensors.shape", f"tensor {shown(name)} has an unusable shape")
    bits = _DTYPE_BITS[dtype]
    overflowing = False
    for n in shape:
        if type(n) is not int or n < 0:
            raise Fault("safetensors.shape", f"tensor {shown(name)} has an unusable shape")
        bits *= n
        overflowing = overflowing or bits > bounds.MAX_TENSOR_BITS
    # A later dimension of 0 does not help a reader whose product has overflowed before it.
    if overflowing:
        raise Fault("safetensors.shape", f"the size of tensor {shown(name)} overflows")
    return bits


def _check_layout(tensors: list[_Tensor], data_bytes: int) -> None:
    at = 0
    for tensor in sorted(tensors, key=lambda t: (t.begin, t.end)):
        if tensor.begin < at:
            raise Fault("safetensors.overlap", f"tensor {shown(tensor.name)} overlaps another")
        if tensor.begin > at:
            raise Fault(
                "safetensors.hole",
                f"{tensor.begin - at} bytes before tensor {shown(tensor.name)} belong to none",
            )
        at = tensor.end
    if at > data_bytes:
        raise Fault("safetensors.truncated", f"the tensors need {at} bytes, {data_bytes} are there")
    if at < data_bytes:
        raise Fault("safetensors.trailing", f"{data_bytes - at} bytes follow the last tensor")
