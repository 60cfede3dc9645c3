"""What a file is, from its bytes alone. A name says what a loader will try, never what it gets.

Order matters. What a loader could execute is looked for first, so that a file which is two things
at once counts as the worse one; then magics; then formats told by their structure; then text.
"""

from __future__ import annotations

import ast
import codecs
import json
import os
import re
import struct
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from bundler.scan import bounds
from bundler.scan.picklestream import looks_like_pickle

# Kinds that some loader unpickles, or unpacks and then unpickles.
PICKLE_CAPABLE = frozenset(
    "pickle npy-object zip tar gzip zlib bzip2 xz lzma lz4 zstd 7z".split()  # noqa: SIM905
)
# Kinds that a processor or an interpreter runs as they are.
EXECUTABLE = frozenset(["elf", "pe", "macho", "pyc", "script"])

_MAGICS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"PK\x07\x08", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"]\x00\x00", "lzma"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x7fELF", "elf"),
    (b"MZ", "pe"),
    (b"\xcf\xfa\xed\xfe", "macho"),
    (b"\xce\xfa\xed\xfe", "macho"),
    (b"\xca\xfe\xba\xbe", "macho"),
    (b"#!", "script"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"GGUF", "gguf"),
)
_LFS = b"version https://git-lfs.github.com/spec/"
# Every CPython since 2.0: two bytes of version, then CR LF.
_PYC = re.compile(rb"..\r\n", re.DOTALL)
# A message whose first field is a piece, whose first field is a text: SentencePiece's ModelProto.
_SENTENCEPIECE = re.compile(rb"\x0a[\x03-\x7f]\x0a[\x01-\x7d][^\x00-\x08\x0e-\x1f]", re.DOTALL)
_EM_CUDA = (190).to_bytes(2, "little")
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES = 22
_JSON_OPENING = re.compile(r'\s*(\{\s*["}]|\[\s*(["\[\]{}0-9-]|true|false|null))')


@dataclass(frozen=True)
class _Ends:
    """The first and the last bytes of a file, and its size in bytes."""

    head: bytes
    tail: bytes
    size: int


def sniff(path: Path) -> str:
    """The kind of the file at `path`; `unknown` where nothing fits, `empty` for no bytes.

    Reads the first and last 65 KiB, and steps through what could be a pickle of plain opcodes.
    Raises OSError when it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(bounds.SNIFF_BYTES)
        file.seek(max(0, size - bounds.SNIFF_BYTES))
        tail = file.read(bounds.SNIFF_BYTES)
        if not head:
            return "empty"
        if looks_like_pickle(file, size):
            return "pickle"
    ends = _Ends(head, tail, size)
    if _has_zip_end(ends):
        return "zip"
    return _by_magic(ends) or _by_structure(ends) or _by_text(ends) or "unknown"


def _has_zip_end(ends: _Ends) -> bool:
    """A zip is found from its end: bytes before it do not stop any reader."""
    at = ends.tail.rfind(_ZIP_END)
    while at >= 0:
        record = ends.tail[at : at + _ZIP_END_BYTES]
        if len(record) == _ZIP_END_BYTES and _is_zip_end(record, ends.size - len(ends.tail) + at):
            return True
        at = ends.tail.rfind(_ZIP_END, 0, at)
    return False


def _is_zip_end(record: bytes, at: int) -> bool:
    """An end record at byte `at` of the file that a reader would follow: one disk, as many members
    here as in all, a directory that fits before it (or zip64). Readers do not mind what comes
    behind it, and weights do not hold such a record by chance."""
    _, disk, start_disk, here, count, size, offset, _ = struct.unpack("<4s4H2LH", record)
    if 0xFFFF in (disk, start_disk, here, count) or 0xFFFFFFFF in (size, offset):
        return True
    return bool(disk == start_disk == 0 and here == count and size + offset <= at)


def _by_magic(ends: _Ends) -> str | None:
    for magic, kind in _MAGICS:
        if ends.head.startswith(magic):
            # 'MZ' and 'BZh' also begin words.
            if kind in ("pe", "bzip2") and _is_text(ends):
                continue
            return "cubin" if kind == "elf" and _is_cubin(ends.head) else kind
    if ends.head.startswith(b"\x93NUMPY"):
        return _npy(ends.head)
    if ends.head.startswith(_LFS):
        return "lfs-pointer"
    return None


def _is_cubin(head: bytes) -> bool:
    """An ELF file for NVIDIA's processors (EM_CUDA): no host can run it."""
    return head[5:6] == b"\x01" and head[18:20] == _EM_CUDA


def _npy(head: bytes) -> str:
    """`npy` only when the header can be read and names no object type; else the worse one."""
    long = head[6:7] != b"\x01"
    start = 12 if long else 10
    length = int.from_bytes(head[8:start], "little")
    try:
        header = ast.literal_eval(head[start : start + min(length, 10_000)].decode("latin-1"))
        descr = header["descr"]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError):
        return "npy-object"
    # Type codes are 'O' or '|O8'; a field called 'O' is a false alarm on the safe side.
    return "npy-object" if "O" in repr(descr) else "npy"


def _by_structure(ends: _Ends) -> str | None:
    head = ends.head
    if _is_safetensors(ends):
        return "safetensors"
    # Pickle protocols 2 to 5 have a magic; after safetensors, whose length may begin like it.
    if len(head) > 1 and head[0] == 0x80 and head[1] <= 5:
        return "pickle"
    if _is_tar(head):
        return "tar"
    if _is_zlib(head):
        return "zlib"
    if _SENTENCEPIECE.match(head):
        return "sentencepiece"
    if _PYC.match(head) and not _is_text(ends):
        return "pyc"
    return None


def _is_safetensors(ends: _Ends) -> bool:
    """Eight bytes of header length that a file can have, then an object (white space is judged
    by the strict check, so that such a file is still told to be safetensors)."""
    length = int.from_bytes(ends.head[:8], "little")
    return length < 2**48 and ends.head[8:].lstrip(b" \t\r\n")[:1] == b"{"


def _is_tar(head: bytes) -> bool:
    if len(head) < 512:
        return False
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _is_zlib(head: bytes) -> bool:
    """RFC 1950: method 8, window up to 32 KiB, check bits; and the first block inflates."""
    if len(head) < 3 or head[0] & 15 != 8 or head[0] >> 4 > 7 or (head[0] << 8 | head[1]) % 31:
        return False
    try:
        zlib.decompressobj().decompress(head[:4096], bounds.SNIFF_BYTES)
    except zlib.error:
        return False
    return True


def _is_text(ends: _Ends) -> bool:
    """UTF-8 without NUL at both ends; the text scanner reads what lies between."""
    if b"\x00" in ends.head or b"\x00" in ends.tail:
        return False
    return _is_utf8(ends.head) and _is_utf8(_from_character(ends))


def _from_character(ends: _Ends) -> bytes:
    """The tail from its first whole character on, when it was cut out of a larger file."""
    if len(ends.tail) == ends.size:
        return ends.tail
    start = 0
    while start < 3 and start < len(ends.tail) and ends.tail[start] & 0xC0 == 0x80:
        start += 1
    return ends.tail[start:]


def _is_utf8(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=False)
    except UnicodeDecodeError:
        return False
    return True


def _by_text(ends: _Ends) -> str | None:
    if not _is_text(ends):
        return None
    text = ends.head.decode("utf-8", "ignore")
    if not _JSON_OPENING.match(text):
        return "text"
    return "json" if ends.size > bounds.SNIFF_JSON_BYTES or _parses(text) else "text"


def _parses(text: str) -> bool:
    """Loosely: what the strict walk refuses must still be told to be JSON."""
    try:
        json.loads(text)
    except ValueError as e:
        # More than one document, or something after it: a loader may stop at the first.
        return str(e).startswith("Extra data")
    except RecursionError:
        return True
    return True
