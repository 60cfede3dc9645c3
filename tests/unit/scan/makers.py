"""Small files of every kind that the gate meets, made by code: sound, or spoilt in one place."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bundler.scan.interface import Scanner, ScanResult, Subject
from bundler.scan.sniff import sniff

Files = Mapping[str, bytes]


def put(folder: Path, files: Files, kind: str = "model") -> list[Subject]:
    """Write the files below `folder` and describe them as the gate does."""
    out = []
    for name, data in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        what = sniff(file)
        if kind == "wheels" and what == "zip":
            what = "wheel"
        digest = hashlib.sha256(data).hexdigest()
        out.append(Subject("it", kind, PurePosixPath(name), digest, len(data), file, what))
    return out


def look(scanner: Scanner, folder: Path, files: Files, kind: str = "model") -> ScanResult:
    """What `scanner` says of an artifact of these files."""
    return scanner.scan(put(folder, files, kind))


def ids(result: ScanResult) -> set[str]:
    """The finding ids."""
    return {f.id for f in result.findings}


def severity(result: ScanResult, id: str) -> str:
    """Severity of the one finding `id`."""
    (found,) = {f.severity for f in result.findings if f.id == id}
    return found


def tensor(begin: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> Any:
    """A safetensors table entry; by default one dimension of bytes."""
    return {
        "dtype": dtype,
        "shape": [end - begin] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def safetensors(table: Any, data: bytes = b"\x00" * 8, header: bytes | None = None) -> bytes:
    """A safetensors file. `header` replaces the encoded table."""
    raw = json.dumps(table).encode() if header is None else header
    return struct.pack("<Q", len(raw)) + raw + data


def sound_safetensors(*names: str) -> bytes:
    """One tensor of 8 bytes for each name."""
    table = {n: tensor(8 * i, 8 * i + 8) for i, n in enumerate(names)}
    return safetensors({"__metadata__": {"format": "pt"}, **table}, b"\x01" * 8 * len(names))


def text(value: str | bytes) -> bytes:
    """A GGUF text."""
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def gguf_value(value: str | int | list[str]) -> bytes:
    """A GGUF value with its type: text, uint32 or a list of texts."""
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(text, value))


def gguf_tensor(
    name: str, offset: int, shape: Sequence[int] = (8,), type: int = 0, rank: int | None = None
) -> bytes:
    """An entry of the tensor table; type 0 is F32."""
    dims = len(shape) if rank is None else rank
    sizes = struct.pack(f"<{len(shape)}Q", *shape)
    return text(name) + struct.pack("<I", dims) + sizes + struct.pack("<IQ", type, offset)


def gguf(
    pairs: Sequence[tuple[str, bytes]] = (),
    tensors: Sequence[bytes] | None = None,
    data: bytes = b"\x00" * 32,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    """A GGUF file; without arguments a sound one of one tensor. `counts` are tensors and keys."""
    table = [gguf_tensor("a", 0)] if tensors is None else tensors
    stated = counts or (len(table), len(pairs))
    head = b"GGUF" + struct.pack("<IQQ", version, *stated)
    head += b"".join(text(k) + v for k, v in pairs) + b"".join(table)
    return head + b"\x00" * (-len(head) % alignment) + data


def record_line(name: str, data: bytes) -> str:
    """A RECORD line as installers write it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(data)}"


WHEEL_NAME = "tiny-1.0-py3-none-any.whl"
_INFO = "tiny-1.0.dist-info"
_WHEEL = b"Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA = b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"


def wheel(
    extra: Files | None = None,
    *,
    replace: Files | None = None,
    record: str | None = None,
    unlisted: Files | None = None,
    method: int = zipfile.ZIP_DEFLATED,
) -> bytes:
    """A wheel of one package `tiny`. `extra` members are listed in RECORD, `unlisted` ones not;
    `replace` puts other bytes under a name after RECORD was made; `record` is its whole text."""
    files = {"tiny/__init__.py": b"x = 1\n", **(extra or {})}
    files |= {f"{_INFO}/METADATA": _METADATA, f"{_INFO}/WHEEL": _WHEEL}
    lines = [record_line(n, d) for n, d in files.items()] + [f"{_INFO}/RECORD,,"]
    files |= unlisted or {}
    for name, data in (replace or {}).items():
        assert name in files
        files[name] = data
    files[f"{_INFO}/RECORD"] = ("\n".join(lines) + "\n" if record is None else record).encode()
    return make_zip(files, method)


def make_zip(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A plain zip of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()
