"""Wheels: the zip is sound, RECORD is true, the metadata is the file name's, nothing self-starts.

PyPA, "Binary distribution format": every file stands in RECORD with its hash and size. Installers
do not hold a wheel against its RECORD, so the gate does. Members are read once and never unpacked
to the disk. Covered means: every byte of the wheel was read and is what its RECORD says; the code
in it is not judged, it runs only when something imports it.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgap.limits import COPY_CHUNK_BYTES, MAX_COPY_WORKERS
from bundler.scan import bounds, ziplayout
from bundler.scan.ahead import Ahead
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.memory import Task, proven
from bundler.scan.report import Fault, finding, shown
from bundler.scan.wheelmeta import Hit, Member, Record, check_identity, check_record, parse_record
from bundler.scan.wheelstart import starts_by_itself

NAME = "wheel"
# Read into memory and looked at, besides RECORD.
_READ = ("WHEEL", "METADATA", "entry_points.txt")


@dataclass(frozen=True)
class _Contents:
    """All members as read: by path, and the metadata texts by bare name."""

    members: dict[str, Member]
    texts: dict[str, str]


class WheelScanner:
    """Reads every member of every wheel that `ahead` has not begun to read."""

    name = NAME

    def __init__(self, ahead: Ahead | None = None) -> None:
        self._ahead = ahead or Ahead()

    def version(self) -> str:
        """The check is ours; its number goes up when it refuses more or less."""
        return "wheel-check 1"

    def scan(self, artifact: Sequence[Subject], on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up every file of an artifact of wheels, largest first, on all cores: inflating and
        hashing leave the interpreter to others."""
        wheels = [s for s in artifact if s.artifact_kind == "wheels"]
        wheels.sort(key=lambda s: (-s.size, str(s.path)))
        result = ScanResult()
        with ThreadPoolExecutor(min(os.cpu_count() or 1, MAX_COPY_WORKERS)) as pool:
            for subject, hits, sound in pool.map(lambda s: self._one(s, on_bytes), wheels):
                if sound:
                    result.covered.add(subject.path)
                else:
                    reason = "it is not a sound wheel"
                    result.unscanned.append(Unscanned(subject.path, reason))
                for id, severity, message, details in hits:
                    result.findings.append(finding(NAME, subject, id, severity, message, details))
        return result

    def _one(self, subject: Subject, on_bytes: OnBytes) -> tuple[Subject, list[Hit], bool]:
        hits, sound = self._ahead.result(task(subject.sha256, subject.file, subject.path.name))
        on_bytes(subject.size)
        return subject, hits, sound


def task(sha256: str, file: Path, file_name: str) -> Task[tuple[list[Hit], bool]]:
    """Looking at one wheel: what `examine` finds depends on its bytes and its name alone."""

    def work() -> tuple[list[Hit], bool]:
        return proven(file, sha256, examine(file, file_name))

    return Task((NAME, sha256, file_name), work, _kept, _back)


def _kept(found: tuple[list[Hit], bool]) -> list[Hit] | None:
    hits, sound = found
    return hits if sound else None


def _back(said: Any) -> tuple[list[Hit], bool]:
    return [(str(i), str(s), str(m), tuple(map(str, details))) for i, s, m, details in said], True


def examine(path: Path, file_name: str) -> tuple[list[Hit], bool]:
    """The hits of one wheel, and whether it is sound."""
    try:
        return list(check(path, file_name)), True
    except Fault as e:
        return [(e.id, "high", e.message, ())], False


def check(path: Path, file_name: str) -> Iterator[Hit]:
    """(finding id, severity, message, details) for the wheel at `path`, called `file_name`.

    Raises Fault where it is not sound enough to go on; OSError when it cannot be read.
    """
    infos = ziplayout.members(path)
    folder = _dist_info(infos)
    try:
        with zipfile.ZipFile(path) as archive:
            record = parse_record(_text(archive, f"{folder}/RECORD"))
            contents = _read_all(archive, infos, folder, record)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as e:
        raise Fault("wheel.member", f"a member cannot be read: {shown(e)}") from e
    yield from check_record(record, contents.members, folder)
    yield from check_identity(file_name, folder, contents.texts)
    yield from starts_by_itself(contents.members, contents.texts)


def _dist_info(infos: list[zipfile.ZipInfo]) -> str:
    tops = {i.orig_filename.split("/")[0] for i in infos if "/" in i.orig_filename}
    folders = sorted(t for t in tops if t.endswith(".dist-info"))
    if len(folders) != 1:
        raise Fault("wheel.dist-info", f"it has {len(folders)} .dist-info folders, not one")
    return folders[0]


def _read_all(
    archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo], folder: str, record: Record
) -> _Contents:
    contents = _Contents({}, {})
    for info in ziplayout.each_file(infos):
        name = info.orig_filename
        row = record.get(name)
        contents.members[name] = _read(archive, info, row.algorithm if row else "sha256")
        bare = name.removeprefix(f"{folder}/")
        if bare in _READ and bare != name:
            contents.texts[bare] = _text(archive, name)
    return contents


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, algorithm: str) -> Member:
    """In pieces: zipfile checks the CRC at the end and never yields more than the stated size."""
    identity, claimed, size = hashlib.sha256(), hashlib.new(algorithm), 0
    with archive.open(info) as member:
        while chunk := member.read(COPY_CHUNK_BYTES):
            size += len(chunk)
            identity.update(chunk)
            if algorithm != "sha256":
                claimed.update(chunk)
    if size != info.file_size:
        raise Fault("wheel.member", f"{shown(info.orig_filename)} is shorter than stated")
    digest = identity.digest() if algorithm == "sha256" else claimed.digest()
    return Member(size, identity.hexdigest(), digest)


def _text(archive: zipfile.ZipFile, name: str) -> str:
    """A metadata file, whole. Raises Fault when it is missing, too large or not UTF-8."""
    try:
        info = archive.getinfo(name)
    except KeyError as e:
        raise Fault("wheel.metadata", f"{shown(name)} is missing") from e
    if info.file_size > bounds.MAX_WHEEL_METADATA_BYTES:
        raise Fault("wheel.metadata", f"{shown(name)} is too large")
    try:
        return archive.read(info).decode("utf-8")
    except UnicodeDecodeError as e:
        raise Fault("wheel.metadata", f"{shown(name)} is not UTF-8") from e
