"""A GGUF file with metadata and one tensor."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list) and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    if isinstance(value, list):
        return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
    return struct.pack("<II", 4, value)


def write_gguf(path: Path, values: dict[str, Any], *, vocabulary: int = 0) -> Path:
    """Version 3, one F32 tensor of 32 numbers. `vocabulary` words stand before everything else."""
    if vocabulary:
        values = {"tokenizer.ggml.tokens": [f"word{n}" for n in range(vocabulary)], **values}
    out = b"GGUF" + struct.pack("<IQQ", 3, 1, len(values))
    out += b"".join(_text(k) + _value(v) for k, v in values.items())
    out += _text("t") + struct.pack("<IQIQ", 1, 32, 0, 0)
    out += b"\0" * (-len(out) % 32) + b"\0" * 128
    path.write_bytes(out)
    return path
