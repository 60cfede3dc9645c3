"""Whether every byte of a zip belongs to exactly one member, and both directories agree.

PKWARE APPNOTE 6.3: a zip is read from its end (4.3.16), each member is described twice, once before
its data (4.3.7) and once in the central directory (4.3.12). Readers differ in which they believe;
a file on which they could differ is refused. Nothing is unpacked here.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bundler.scan import bounds
from bundler.scan.report import Fault, shown

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL_BYTES = 46
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_HAS_DESCRIPTOR = 0x8
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Signature or none; two sizes of 4 bytes or of 8.
_DESCRIPTOR_BYTES = (12, 16, 20, 24)


@dataclass(frozen=True)
class _Directory:
    """Where the central directory lies, in bytes from the start of the file."""

    start: int
    size: int
    members: int


def members(path: Path) -> list[zipfile.ZipInfo]:
    """The members of the zip at `path`, checked, in the order of the file. Raises Fault.

    OSError when it cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        directory = _directory(file, size)
        infos = _infos(file)
        if len(infos) != directory.members:
            raise Fault("wheel.directory", "the number of members is not the one it states")
        for info in infos:
            _check_member(info)
        _check_names(infos)
        _check_volume(infos, size)
        _check_data(file, infos, directory)
    return infos


def _directory(file: BinaryIO, size: int) -> _Directory:
    """The end record must be the last thing in the file, and the directory end right before it."""
    if size < _END.size:
        raise Fault("wheel.not-a-zip", "the file is too short for a zip")
    file.seek(size - _END.size)
    magic, disk, _, _, count, length, start, comment = _END.unpack(file.read(_END.size))
    if magic != b"PK\x05\x06" or comment:
        raise Fault("wheel.hidden-bytes", "the file does not end with a zip's end record")
    end = size - _END.size
    if disk:
        raise Fault("wheel.directory", "a zip in several parts")
    if count == 0xFFFF or length == 0xFFFFFFFF or start == 0xFFFFFFFF:
        end, count, length, start = _directory64(file, end)
    if length > bounds.MAX_WHEEL_DIRECTORY_BYTES or count > bounds.MAX_WHEEL_MEMBERS:
        raise Fault("wheel.bomb", f"a directory of {count} members in {length} bytes")
    if start + length != end:
        raise Fault("wheel.hidden-bytes", "bytes beside the directory belong to no member")
    return _Directory(start, length, count)


def _directory64(file: BinaryIO, end: int) -> tuple[int, int, int, int]:
    at = end - _LOCATOR.size - _END64.size
    if at < 0:
        raise Fault("wheel.directory", "the zip64 end record is missing")
    file.seek(at)
    record = _END64.unpack(file.read(_END64.size))
    locator = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if record[0] != b"PK\x06\x06" or locator[0] != b"PK\x06\x07" or locator[2] != at:
        raise Fault("wheel.directory", "the zip64 end record is not where it must be")
    return at, record[7], record[8], record[9]


def _infos(file: BinaryIO) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as e:
        raise Fault("wheel.directory", f"the directory cannot be read: {shown(e)}") from e
    return sorted(infos, key=lambda i: i.header_offset)


def _check_member(info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    if info.flag_bits & _ENCRYPTED:
        raise Fault("wheel.encrypted", f"the member {shown(name)} is encrypted")
    if info.compress_type not in _METHODS:
        raise Fault("wheel.compression", f"the member {shown(name)} is packed in an unusual way")
    type = info.external_attr >> 16 & 0o170000
    if type not in (0, 0o100000, 0o040000) or (type == 0o040000) > name.endswith("/"):
        raise Fault("wheel.link", f"the member {shown(name)} is a link or a special file")
    if name.endswith("/") and info.file_size:
        raise Fault("wheel.path", f"the folder {shown(name)} has content")
    if not _is_inside(name):
        raise Fault("wheel.path", f"the member {shown(name)} would not lie inside the target")


def _is_inside(name: str) -> bool:
    if not name.isprintable() or "\\" in name or name.startswith("/") or name[1:2] == ":":
        return False
    parts = name.removesuffix("/").split("/")
    return not any(part in ("", ".", "..") for part in parts)


def _check_names(infos: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for info in infos:
        name = info.orig_filename.removesuffix("/")
        if name in seen:
            raise Fault("wheel.duplicate", f"the member {shown(name)} stands there twice")
        seen.add(name)


def _check_volume(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Before anything is inflated. The stated sizes hold: reading stops where they end."""
    total = sum(i.file_size for i in infos)
    allowed = max(size * bounds.MAX_WHEEL_RATIO, bounds.WHEEL_RATIO_FLOOR_BYTES)
    if total > bounds.MAX_WHEEL_UNPACKED_BYTES or total > allowed:
        raise Fault("wheel.bomb", f"{size} bytes would unpack to {total}")


def _check_data(file: BinaryIO, infos: list[zipfile.ZipInfo], directory: _Directory) -> None:
    """From byte 0 to the directory: member after member, nothing before, between or behind."""
    if not infos:
        raise Fault("wheel.empty", "the zip has no members")
    at = 0
    starts = [i.header_offset for i in infos[1:]] + [directory.start]
    for info, following in zip(infos, starts, strict=True):
        if info.header_offset != at:
            what = shown(info.orig_filename)
            raise Fault("wheel.hidden-bytes", f"bytes before the member {what} belong to none")
        end = _end_of(file, info)
        if following - end not in _allowed_gaps(info):
            what = shown(info.orig_filename)
            raise Fault("wheel.hidden-bytes", f"the member {what} does not end where it should")
        at = following


def _allowed_gaps(info: zipfile.ZipInfo) -> tuple[int, ...]:
    return _DESCRIPTOR_BYTES if info.flag_bits & _HAS_DESCRIPTOR else (0,)


def _end_of(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where the member's data ends; its local header must tell the same as the directory."""
    file.seek(info.header_offset)
    raw = file.read(_LOCAL.size)
    what = shown(info.orig_filename)
    if len(raw) != _LOCAL.size or raw[:4] != b"PK\x03\x04":
        raise Fault("wheel.directory", f"the member {what} is not where the directory says")
    _, _, flags, method, _, _, crc, packed, size, name_length, extra_length = _LOCAL.unpack(raw)
    name = file.read(name_length)
    encoding = "utf-8" if flags & 0x800 else "cp437"
    if name.decode(encoding, "replace") != info.orig_filename:
        raise Fault("wheel.names-differ", f"the member {what} has another name before its data")
    stated = (crc, packed, size)
    known = {(info.CRC, info.compress_size, info.file_size)}
    if flags & _HAS_DESCRIPTOR:
        known |= {(0, 0, 0)}
    zip64 = {(c, p and 0xFFFFFFFF, s and 0xFFFFFFFF) for c, p, s in known}
    if method != info.compress_type or flags != info.flag_bits or stated not in known | zip64:
        raise Fault("wheel.headers-differ", f"the member {what} is described in two ways")
    before = int(_LOCAL.size + name_length + extra_length)
    return info.header_offset + before + info.compress_size


def each_file(infos: list[zipfile.ZipInfo]) -> Iterator[zipfile.ZipInfo]:
    """The members that are files."""
    return (i for i in infos if not i.orig_filename.endswith("/"))
