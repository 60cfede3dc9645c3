"""A tar as it streams by: every member's header, nothing extracted, nothing large kept.

`tarfile` reads the long names and extended headers that a tar brings whole into memory, so the
headers are read here (POSIX.1-2017 pax, and GNU long names), each bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bundler.scan import bounds
from bundler.scan.report import Fault, shown

_BLOCK = 512
_ZERO = bytes(_BLOCK)
_NAMES = {
    b"0": "file",
    b"\x00": "file",
    b"7": "file",
    b"1": "hard link",
    b"2": "symbolic link",
    b"3": "device",
    b"4": "device",
    b"5": "folder",
    b"6": "fifo",
}


@dataclass(frozen=True)
class Entry:
    """One member: name and link target as they stand there, kind, mode bits, extended headers."""

    name: str
    kind: str
    mode: int
    size: int
    target: str = ""
    extended: dict[str, str] = field(default_factory=dict)


class Source:
    """Bytes by count, from something that gives them in pieces."""

    def __init__(self, more: Callable[[], bytes]) -> None:
        self._more = more
        self._held = b""

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes; fewer at the end."""
        parts, missing = [], count
        while missing:
            piece = self._piece(missing)
            if not piece:
                break
            parts.append(piece)
            missing -= len(piece)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass `count` bytes by. Raises Fault when there are fewer."""
        while count:
            piece = self._piece(count)
            if not piece:
                raise Fault("image.layer", "the tar ends within a member")
            count -= len(piece)

    def _piece(self, at_most: int) -> bytes:
        if not self._held:
            self._held = self._more()
        piece, self._held = self._held[:at_most], self._held[at_most:]
        return piece


def walk(source: Source) -> Iterator[Entry]:
    """Every member, until the end of the archive; then nothing but zeros may follow.

    Raises Fault `image.layer` where two readers could see two archives.
    """
    pending: dict[str, str] = {}
    for _ in range(bounds.MAX_LAYER_MEMBERS):
        block = source.take(_BLOCK)
        if not block or block == _ZERO:
            _check_rest(source)
            return
        if len(block) < _BLOCK:
            raise Fault("image.layer", "the tar ends within a header")
        _check_sum(block)
        kind, size = block[156:157], _number(block[124:136])
        if kind in b"xgLK" and kind:
            pending |= _extension(kind, source, size)
            continue
        size = _decimal(pending["size"]) if "size" in pending else size
        yield _entry(block, kind, size, pending)
        pending = {}
        source.skip(-(-size // _BLOCK) * _BLOCK)
    raise Fault("image.layer", f"it has more than {bounds.MAX_LAYER_MEMBERS} members")


def _entry(block: bytes, kind: bytes, size: int, pending: dict[str, str]) -> Entry:
    if kind not in _NAMES:
        raise Fault("image.layer", f"a member is of the unknown type {shown(kind)}")
    if any(key.startswith("GNU.sparse") for key in pending):
        raise Fault("image.layer", "a member is sparse")
    name = _string(block[:100])
    prefix = _string(block[345:500]) if block[257:263] == b"ustar\x00" else ""
    if _NAMES[kind] not in ("file", "hard link") and size:
        raise Fault("image.layer", f"{shown(name)} has content and is no file")
    return Entry(
        name=pending.get("path") or (f"{prefix}/{name}" if prefix else name),
        kind=_NAMES[kind],
        mode=_number(block[100:108]),
        size=size,
        target=pending.get("linkpath") or _string(block[157:257]),
        extended=pending,
    )


def _extension(kind: bytes, source: Source, size: int) -> dict[str, str]:
    """A header that speaks about the next member."""
    if size > bounds.MAX_TAR_HEADER_BYTES:
        raise Fault("image.layer", f"a header has {size} bytes")
    data = source.take(size)
    source.skip(-size % _BLOCK)
    if len(data) != size:
        raise Fault("image.layer", "the tar ends within a header")
    if kind == b"L":
        return {"path": _string(data)}
    if kind == b"K":
        return {"linkpath": _string(data)}
    found = _pax(data)
    if kind == b"g":  # speaks about all members: what names or sizes one has no place in it
        if found.keys() & {"path", "linkpath", "size"}:
            raise Fault("image.layer", "a global header renames members")
        return {}
    return found


def _pax(data: bytes) -> dict[str, str]:
    """`LENGTH KEY=VALUE` and a newline, again and again."""
    out: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at:space].decode("latin-1")) if space > at else 0
        record = data[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if length < 5 or at + length > len(data) or not equals or not value.endswith(b"\n"):
            raise Fault("image.layer", "an extended header is not well-formed")
        name = key.decode("utf-8", "surrogateescape")
        if name in out:
            raise Fault("image.layer", "an extended header says one thing twice")
        out[name] = value[:-1].decode("utf-8", "surrogateescape")
        at += length
    return out


def _check_sum(block: bytes) -> None:
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if _number(block[148:156]) != total:
        raise Fault("image.layer", "a header's checksum is wrong: it is no tar")


def _check_rest(source: Source) -> None:
    while piece := source.take(1024 * 1024):
        if piece.strip(b"\x00"):
            raise Fault("image.layer", "something follows the end of the tar")


def _number(raw: bytes) -> int:
    """Octal digits, or GNU's big-endian form."""
    if raw[0] & 0x80:
        value = int.from_bytes(bytes([raw[0] & 0x7F]) + raw[1:], "big")
        if raw[0] & 0x40 or value > bounds.MAX_LAYER_UNPACKED_BYTES:
            raise Fault("image.layer", "a number of a header is out of bounds")
        return value
    text = raw.strip(b" \x00")
    if not text:
        return 0
    if not text.isdigit() or b"8" in text or b"9" in text:
        raise Fault("image.layer", "a number of a header is not octal")
    return int(text, 8)


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Fault("image.layer", "a number of an extended header is none")
    return int(text)


def _string(raw: bytes) -> str:
    return raw.split(b"\x00", 1)[0].decode("utf-8", "surrogateescape")
