"""The directory carrier: a bundle as a folder on a medium.

A medium is hostile. Its trust folder is read once into memory, bounded, plain files only, and never
again; the payload is looked at by lstat first, and only names that the approved manifest makes are
ever opened.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airgap import bounded, fsio, limits
from airgap.bounded import COPY_AGAIN, too_much
from airgap.errors import IntegrityError, SealiftError, UsageError
from airgap.format import layout
from airgap.trust.decide import TrustFiles
from airgap.trust.statements import envelope_name

_METADATA = re.compile(r"(?:[1-9][0-9]{0,9}\.(?:root|targets|snapshot)|timestamp)\.json")
_STATEMENT = re.compile(r"[0-9a-f]{32}\.dsse\.json")


@dataclass(frozen=True)
class Expected:
    """One file that the bundle must have: its SHA-256 and size in bytes."""

    sha256: str
    size: int


@dataclass
class _Quarantine:
    files: dict[str, bytes] = field(default_factory=dict)
    total: int = 0
    fault: SealiftError | None = None


@dataclass(frozen=True)
class Quarantine:
    """The trust folder as it was read: relative path -> bytes, and what TUF is shown of it."""

    raw: Mapping[str, bytes]
    files: TrustFiles


def find_bundle(path: Path) -> Path:
    """The bundle at `path`, or the only one directly below it (a medium's top folder)."""
    found: list[Path] = []
    with fsio.disk_errors(f"reading {path}"):
        if (path / layout.OCI_LAYOUT).exists() or (path / layout.TRUST).exists():
            return path
        if path.is_dir():
            found = sorted(e for e in path.iterdir() if (e / layout.TRUST).is_dir())
    if len(found) == 1:
        return found[0]
    names = ", ".join(_shown(e.name) for e in found[:5]) or "none"
    raise UsageError(
        "bundle.not-found",
        f"{path} is not a bundle",
        why=f"it has no {layout.TRUST} folder, and {len(found)} bundles lie below it ({names})"
        if path.exists()
        else "there is no such folder",
        do="name the folder that holds README.txt and trust/",
    )


def quarantine(bundle: Path) -> Quarantine:
    """Step 2: read the trust folder once: bounded, plain files, known names.

    What does not belong is kept as `fault`, so that what the officers signed can still be learned.
    """
    q = _Quarantine()
    fault = _no_folder(bundle / layout.TRUST)
    if fault is not None:
        return Quarantine({}, TrustFiles({}, (), "", b"", fault))
    for folder in (layout.METADATA, layout.STATEMENTS):
        pattern = _STATEMENT if folder == layout.STATEMENTS else _METADATA
        _read_folder(q, bundle / layout.TRUST, folder, pattern)
    target_path = _read_target(q, bundle / layout.TRUST / layout.TARGETS)
    metadata = _below(q.files, layout.METADATA)
    statements = _below(q.files, layout.STATEMENTS)
    target = q.files.get(f"{layout.TARGETS}/{target_path}", b"")
    files = TrustFiles(
        {n: d for n, d in metadata.items() if "/" not in n},
        tuple(statements.values()),
        target_path,
        target,
        q.fault or _misnamed(statements),
    )
    return Quarantine(q.files, files)


def _misnamed(statements: Mapping[str, bytes]) -> IntegrityError | None:
    """A statement's name is its own digest, so that a bundle has one form."""
    for name, data in statements.items():
        if name != envelope_name(data):
            return _extra(f"{layout.TRUST}/{layout.STATEMENTS}/{name}")
    return None


def _no_folder(path: Path) -> SealiftError | None:
    """What is wrong with a folder of the bundle that must be no link to another place."""
    try:
        return None if stat.S_ISDIR(os.lstat(path).st_mode) else _not_plain(path.name)
    except FileNotFoundError:
        return _missing(path.name)
    except OSError as e:
        return fsio.wrap_os_error(e, f"reading {path}")


def _below(files: Mapping[str, bytes], folder: str) -> dict[str, bytes]:
    prefix = f"{folder}/"
    return {n[len(prefix) :]: d for n, d in sorted(files.items()) if n.startswith(prefix)}


@dataclass(frozen=True)
class _Entry:
    """A name in a folder and what lstat says of it: `mode` as in st_mode."""

    name: str
    mode: int


def _read_folder(q: _Quarantine, trust: Path, folder: str, pattern: re.Pattern[str]) -> None:
    for entry in _entries(q, trust / folder):
        if pattern.fullmatch(entry.name) and stat.S_ISREG(entry.mode):
            _read_one(q, trust / folder / entry.name, f"{folder}/{entry.name}")
        elif not (entry.name == "statements" and stat.S_ISDIR(entry.mode)):
            q.fault = q.fault or _extra(f"{layout.TRUST}/{folder}/{entry.name}")


def _read_target(q: _Quarantine, targets: Path) -> str:
    """The one file at targets/NAME/VERSION.manifest.json; its path from there."""
    found = []
    for entry in _entries(q, targets):
        if not stat.S_ISDIR(entry.mode):
            q.fault = q.fault or _extra(f"trust/targets/{entry.name}")
            continue
        found += [f"{entry.name}/{e.name}" for e in _entries(q, targets / entry.name)]
    if len(found) != 1 or not found[0].endswith(".manifest.json"):
        q.fault = q.fault or IntegrityError(
            "bundle.targets",
            "trust/targets must hold exactly one approved manifest",
            why=f"it holds {len(found)} entries",
            do="copy the bundle again from where it was packed",
        )
        return ""
    _read_one(q, targets / found[0], f"{layout.TARGETS}/{found[0]}")
    return found[0]


def _entries(q: _Quarantine, folder: Path) -> list[_Entry]:
    """What lies in a folder, sorted, bounded; nothing where it is no folder of its own."""
    try:
        if stat.S_ISDIR(os.lstat(folder).st_mode):
            with os.scandir(folder) as entries:
                out = [
                    _Entry(e.name, e.stat(follow_symlinks=False).st_mode)
                    for e in itertools.islice(entries, limits.MAX_TRUST_FILES + 1)
                ]
            if len(out) > limits.MAX_TRUST_FILES:
                q.fault = q.fault or too_much(folder, "files")
            return sorted(out[: limits.MAX_TRUST_FILES], key=lambda e: e.name)
    except FileNotFoundError:
        pass
    except OSError as e:
        q.fault = q.fault or fsio.wrap_os_error(e, f"reading {folder}")
        return []
    if folder.name != "statements":
        q.fault = q.fault or _missing(folder.name)
    return []


def _read_one(q: _Quarantine, path: Path, name: str) -> None:
    try:
        data = bounded.read(path, limits.MAX_TRUST_FILE_BYTES)
    except SealiftError as e:
        q.fault = q.fault or e
        return
    q.total += len(data)
    if q.total > limits.MAX_TRUST_TOTAL_BYTES or len(q.files) >= limits.MAX_TRUST_FILES:
        q.fault = q.fault or too_much(path.parent, "bytes")
        return
    q.files[name] = data


def check_names(bundle: Path, expected: Mapping[str, Expected]) -> None:
    """Step 8, lstat walk: exactly the expected names, plain files, right sizes. Opens nothing.

    Raises IntegrityError `bundle.extra`, `bundle.missing`, `integrity.size`,
    `integrity.not-a-file`.
    """
    folders = {str(p) for name in expected for p in Path(name).parents} - {"."}
    seen: set[str] = set()
    for name, st in _walk(bundle, ""):
        if stat.S_ISDIR(st.st_mode):
            if name not in folders:
                raise _extra(name + "/")
            continue
        if not stat.S_ISREG(st.st_mode):
            raise _not_plain(name)
        want = expected.get(name)
        if want is None:
            raise _extra(name)
        if st.st_size != want.size:
            raise _size(name, st.st_size, want.size)
        seen.add(name)
    absent = sorted(set(expected) - seen)
    if absent:
        raise _missing(absent[0], len(absent))


def _walk(folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
    with fsio.disk_errors(f"reading {folder}"), os.scandir(folder) as found:
        entries = list(itertools.islice(found, 2 * limits.MAX_FILES))
    if len(entries) == 2 * limits.MAX_FILES:
        raise too_much(folder, "files")
    for entry in sorted(entries, key=lambda e: e.name):
        name = prefix + entry.name
        with fsio.disk_errors(f"reading {folder}"):
            st = os.lstat(entry.path)
        yield name, st
        if stat.S_ISDIR(st.st_mode):
            if prefix.count("/") > limits.MAX_PATH_DEPTH:
                raise too_much(folder, "folders")
            yield from _walk(Path(entry.path), name + "/")


def _shown(name: str) -> str:
    """A name from a medium, safe to print: no control characters, no bytes that are no text."""
    text = name[:200].encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _extra(name: str) -> IntegrityError:
    return IntegrityError(
        "bundle.extra",
        f"the bundle holds something that the manifest does not name: {_shown(name)}",
        why="only what was approved may lie in a bundle",
        do=f"remove it, or {COPY_AGAIN}",
    )


def _missing(name: str, count: int = 1) -> IntegrityError:
    more = f" and {count - 1} more" if count > 1 else ""
    return IntegrityError(
        "bundle.missing",
        f"the bundle lacks {name}{more}",
        why="it was not copied completely, or it was removed",
        do=COPY_AGAIN,
    )


def _not_plain(name: str) -> IntegrityError:
    return IntegrityError(
        "integrity.not-a-file",
        f"{_shown(name)} was refused",
        why="it is a link or a special file; a bundle holds plain files only",
        do=COPY_AGAIN,
    )


def _size(name: str, size: int, expected: int) -> IntegrityError:
    return IntegrityError(
        "integrity.size",
        f"{name} has {size} bytes, it must have {expected}",
        why="it was cut off, grew, or is another file",
        do=COPY_AGAIN,
    )
