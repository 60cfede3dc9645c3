"""One image layer: unpacked as it streams, hashed, walked as a tar, never written anywhere."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from airgap.limits import MIB
from bundler.scan import bounds
from bundler.scan.report import Fault, shown
from bundler.scan.tarwalk import Entry, Source, walk

_CHUNK_BYTES = 1 * MIB
_SETUID = 0o6000
_CAPABILITY = "SCHILY.xattr.security.capability"
_WHITEOUT = ".wh."


@dataclass
class Layer:
    """What a layer holds. `diff_id` is the SHA-256 of the unpacked tar; `hits` are (finding id,
    severity, message); `setuid` names files that run as their owner."""

    diff_id: str = ""
    size: int = 0
    members: int = 0
    setuid: list[str] = field(default_factory=list)
    hits: list[tuple[str, str, str]] = field(default_factory=list)


def read(path: Path, packing: str) -> Layer:
    """Read the whole layer at `path`. Raises Fault where it is not sound, OSError."""
    layer = Layer()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        pieces = _counted(_UNPACK[packing](file), path.stat().st_size, layer)

        def more() -> bytes:
            piece = next(pieces, b"")
            digest.update(piece)
            return piece

        for entry in walk(Source(more)):
            layer.members += 1
            _judge(entry, layer)
    layer.diff_id = digest.hexdigest()
    return layer


def _counted(pieces: Iterator[bytes], packed: int, layer: Layer) -> Iterator[bytes]:
    """Unpacked bytes under a bound: a small layer must not keep the scanner for hours."""
    floor = bounds.LAYER_RATIO_FLOOR_BYTES
    limit = min(bounds.MAX_LAYER_UNPACKED_BYTES, max(floor, packed * bounds.MAX_LAYER_RATIO))
    for piece in pieces:
        layer.size += len(piece)
        if layer.size > limit:
            raise Fault("image.bomb", f"{packed} bytes unpack to more than {limit}")
        if piece:
            yield piece


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_CHUNK_BYTES):
        yield piece


def _gzip(file: BinaryIO) -> Iterator[bytes]:
    """One member or several; every CRC is checked by zlib, nothing may follow."""
    data = file.read(_CHUNK_BYTES)
    while data:
        unpacker = zlib.decompressobj(wbits=31)
        while not unpacker.eof:
            try:
                piece = unpacker.decompress(data, _CHUNK_BYTES)
            except zlib.error as e:
                raise Fault("image.layer", f"it is no sound gzip: {shown(e)}") from e
            if not piece and not data:
                raise Fault("image.layer", "the gzip ends early")
            yield piece
            if not unpacker.eof:
                data = unpacker.unconsumed_tail or file.read(_CHUNK_BYTES)
        data = unpacker.unused_data or file.read(_CHUNK_BYTES)


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """Frames one after the other, skippable ones too (zstd:chunked appends them)."""
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=bounds.MAX_ZSTD_WINDOW_BYTES)
    try:
        with unpacker.stream_reader(file, read_across_frames=True, closefd=False) as reader:
            while piece := reader.read(_CHUNK_BYTES):
                yield piece
    except zstandard.ZstdError as e:
        raise Fault("image.layer", f"it is no sound zstd: {shown(e)}") from e


_UNPACK: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    "tar": _plain,
    "gzip": _gzip,
    "zstd": _zstd,
}


def _judge(entry: Entry, layer: Layer) -> None:
    """What no image needs, and what an officer wants to know."""
    hits = layer.hits
    if len(hits) > bounds.MAX_FINDINGS_PER_FILE:
        return
    parts = [p for p in entry.name.split("/") if p not in ("", ".")]
    if ".." in parts or "\x00" in entry.name:
        hits.append(("image.path", "high", f"{shown(entry.name)} leads out of the layer"))
    if _bad_whiteout(parts):
        hits.append(("image.path", "high", f"{shown(entry.name)} is no sound whiteout"))
    if entry.kind == "hard link" and ".." in entry.target.split("/"):
        text = f"{shown(entry.name)} links to {shown(entry.target)}, out of the layer"
        hits.append(("image.path", "high", text))
    if entry.kind == "device":
        hits.append(("image.device", "high", f"{shown(entry.name)} is a device node"))
    if entry.kind == "fifo":
        hits.append(("image.fifo", "low", f"{shown(entry.name)} is a named pipe"))
    if (entry.kind == "file" and entry.mode & _SETUID) or _CAPABILITY in entry.extended:
        layer.setuid.append(entry.name)


def _bad_whiteout(parts: list[str]) -> bool:
    """`.wh.NAME` removes NAME; `.wh.` alone, `.wh..` and `.wh...` would remove the folder or its
    parent. `.wh..wh..opq` is the specification's own."""
    hidden = [p.removeprefix(_WHITEOUT) for p in parts if p.startswith(_WHITEOUT)]
    return any(h in ("", ".", "..") for h in hidden)
