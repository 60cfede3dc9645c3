"""RECORD against the members, and a wheel's metadata against its file name.

PyPA specifications "Recording installed projects" (RECORD: path, hash, size) and "Binary
distribution format" (file name, WHEEL, METADATA).
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bundler.scan.report import Fault, shown

# (finding id, severity, message, details)
Hit = tuple[str, str, str, tuple[str, ...]]
# PEP 427: sha256 or better. MD5 and SHA-1 are not.
_ALGORITHMS = ("sha256", "sha384", "sha512")
# Signatures over RECORD cannot stand in it.
_UNHASHED = ("RECORD", "RECORD.jws", "RECORD.p7s")
# More would bury the first ones.
_SHOWN_HITS = 20


@dataclass(frozen=True)
class Row:
    """What RECORD says of a file. `digest` raw, None where it gives none; `size` in bytes."""

    algorithm: str
    digest: bytes | None
    size: int | None


@dataclass(frozen=True)
class Member:
    """A member as it was read: size in bytes, SHA-256 in hex, raw digest in RECORD's algorithm."""

    size: int
    sha256: str
    digest: bytes


Record = Mapping[str, Row]


def parse_record(text: str) -> Record:
    """RECORD's rows by path. Raises Fault where a row is not as specified or stands there twice."""
    rows: dict[str, Row] = {}
    try:
        for cells in csv.reader(io.StringIO(text, newline=""), strict=True):
            if not cells:
                continue
            if len(cells) != 3:
                raise Fault("wheel.record", f"a row of RECORD has {len(cells)} cells, not 3")
            path, digest, size = cells
            row = _row(path, digest, size)
            if rows.setdefault(path, row) != row:
                raise Fault("wheel.record", f"RECORD has two different rows for {shown(path)}")
    except csv.Error as e:
        raise Fault("wheel.record", f"RECORD is not CSV: {shown(e)}") from e
    return rows


def _row(path: str, digest: str, size: str) -> Row:
    if size and not (size.isascii() and size.isdigit() and len(size) < 16):
        raise Fault("wheel.record", f"RECORD gives {shown(path)} the size {shown(size)}")
    number = int(size) if size else None
    if not digest:
        return Row("sha256", None, number)
    algorithm, _, value = digest.partition("=")
    if algorithm not in _ALGORITHMS:
        raise Fault("wheel.record", f"RECORD gives {shown(path)} a {shown(algorithm)} hash")
    try:
        raw = base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as e:
        raise Fault("wheel.record", f"RECORD gives {shown(path)} an unreadable hash") from e
    return Row(algorithm, raw, number)


def check_record(record: Record, members: Mapping[str, Member], folder: str) -> Iterator[Hit]:
    """Every file in RECORD and every row a file, same hash, same size."""
    yield from _first_of("wheel.record-extra", "RECORD does not list", members.keys() - record)
    yield from _first_of(
        "wheel.record-missing", "RECORD lists, but there is no", _absent(record, members)
    )
    wrong = {path for path, row in record.items() if _differs(path, row, members, folder)}
    yield from _first_of("wheel.record-mismatch", "RECORD has another hash or size for", wrong)


def _absent(record: Record, members: Mapping[str, Member]) -> set[str]:
    """Some tools list folders; a row for one promises nothing."""
    return {p for p in record.keys() - members.keys() if not p.endswith("/")}


def _differs(path: str, row: Row, members: Mapping[str, Member], folder: str) -> bool:
    member = members.get(path)
    if member is None:
        return False
    if row.size not in (None, member.size):
        return True
    if row.digest is None:
        return path not in {f"{folder}/{name}" for name in _UNHASHED}
    return row.digest != member.digest


def _first_of(id: str, text: str, paths: set[str]) -> Iterator[Hit]:
    for path in sorted(paths)[:_SHOWN_HITS]:
        yield id, "high", f"{text} {shown(path)}", ()


def check_identity(file_name: str, folder: str, texts: Mapping[str, str]) -> Iterator[Hit]:
    """Name, version and tags must be one and the same everywhere they are written.

    Tags that differ are `low`: installers go by the file name, and some publishers rename wheels.
    """
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import InvalidVersion

    try:
        name, version, _, tags = parse_wheel_filename(file_name)
    except (InvalidWheelFilename, InvalidVersion) as e:
        raise Fault("wheel.file-name", f"{shown(file_name)} is not a wheel's file name") from e
    wanted = (str(name), str(version))
    stated = _headers(texts, "METADATA")
    inner, _, inner_version = folder.removesuffix(".dist-info").rpartition("-")
    for where, pair in (
        ("METADATA", (stated.get("name", [""])[0], stated.get("version", [""])[0])),
        ("the .dist-info folder", (inner, inner_version)),
    ):
        if (canonicalize_name(pair[0]), _version(pair[1])) != wanted:
            message = (
                f"{where} says {shown(' '.join(pair))}, the file name {shown(' '.join(wanted))}"
            )
            yield "wheel.identity", "high", message, ()
    wheel = _headers(texts, "WHEEL")
    if wheel.get("wheel-version", [""])[0].split(".")[0] != "1":
        yield "wheel.version", "high", "WHEEL states no format version 1", ()
    if _tags(wheel.get("tag", [])) != {str(t) for t in tags}:
        yield "wheel.tags", "low", "WHEEL has other tags than the file name", ()


def _version(text: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(text))
    except InvalidVersion:
        return text


def _tags(lines: list[str]) -> set[str]:
    from packaging.tags import parse_tag

    try:
        return {str(tag) for line in lines for tag in parse_tag(line)}
    except ValueError:
        return set()


def _headers(texts: Mapping[str, str], file: str) -> dict[str, list[str]]:
    """The `Name: value` lines before the first empty one, names in lower case."""
    if file not in texts:
        raise Fault("wheel.metadata", f"{file} is missing")
    out: dict[str, list[str]] = {}
    for line in texts[file].splitlines():
        if not line.strip():
            break
        name, colon, value = line.partition(":")
        if colon and not line[0].isspace():
            out.setdefault(name.lower(), []).append(value.strip())
    return out
