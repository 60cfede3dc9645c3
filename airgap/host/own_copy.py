"""The program's copy of itself under the root, which the daemons run: the medium that it came on
may be taken away.

Bytecode of this Python lies beside each source in it, so that a daemon does not compile the whole
program whenever it starts (docs/decisions/0050-compiled-copy.md). zipimport takes it for the same
Python only, and the sources otherwise.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
from pathlib import Path

from airgap import fsio, limits

# PEP 552: bytecode that belongs to the source by hash, and is not compared again when it is run.
_FLAGS = (0b01).to_bytes(4, "little")
# Later versions of marshal's form write what was interned or is referred to elsewhere in another
# way, and that depends on what this process did before: the same source, other bytes.
_MARSHAL_VERSION = 2


def keep(archive: Path, copy: Path) -> Path:
    """Have the copy of the zip `archive` at `copy`, whole and of these very bytes; returns it."""
    if copy.exists() and archive.samefile(copy):
        return copy
    with fsio.disk_errors(f"reading {archive}"):
        data = archive.read_bytes()
    note = copy.with_name(copy.name + ".made")
    if copy.exists() and _said(data, copy.read_bytes()) == fsio.read_if_there(note, limits.KIB):
        return copy
    made = compiled(data)
    fsio.write(copy, made, 0o755)
    fsio.write(note, _said(data, made), 0o644)
    return copy


def write(archive: Path, output: Path) -> None:
    """The compiled copy of the zip `archive`, without a note: for whoever replaces both together
    (install.sh)."""
    with fsio.disk_errors(f"reading {archive}"):
        data = archive.read_bytes()
    fsio.write(output, compiled(data), 0o755)


def _said(archive: bytes, copy: bytes) -> bytes:
    """From what, for which Python, and what it must be."""
    words = (_sha256(archive), importlib.util.MAGIC_NUMBER.hex(), _sha256(copy))
    return (" ".join(words) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def compiled(archive: bytes) -> bytes:
    """The same zip, with bytecode beside every source; the same bytes every time."""
    import zipfile  # with it come the compressors; only the first start after a change needs it

    out = io.BytesIO(b"#!/usr/bin/env python3\n")
    out.seek(0, io.SEEK_END)
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            if entry.filename.endswith(".pyc"):
                continue  # `archive` is such a copy, perhaps another Python's
            data = old.read(entry)
            new.writestr(entry, data)
            if entry.filename.endswith(".py"):
                extra = zipfile.ZipInfo(entry.filename + "c", entry.date_time)
                extra.external_attr = entry.external_attr
                new.writestr(extra, _bytecode(data, entry.filename))
    return out.getvalue()


def _bytecode(source: bytes, name: str) -> bytes:
    code = compile(source, name, "exec", dont_inherit=True)
    head = importlib.util.MAGIC_NUMBER + _FLAGS + importlib.util.source_hash(source)
    return head + marshal.dumps(code, _MARSHAL_VERSION)
