"""airgap.pyz: our isolated side and its three libraries as one file that any Python 3.10+ runs.

Source only, stored and not compressed, sorted, without times: the bytes follow from our sources and
the pinned wheels alone, whatever Python, zlib, time zone or umask builds it (decision 0004).
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import airgap
from airgap import fsio
from airgap.errors import IntegrityError, UsageError

SHEBANG = b"#!/usr/bin/env python3\n"
LIBRARIES = ("click", "securesystemslib", "tuf")
_NATIVE = (".so", ".pyd", ".dylib", ".dll", ".a")
# Never imported on a host: the HTTP clients (`airgap.trust.offline`).
_LEFT_OUT = ("tuf/ngclient/urllib3_fetcher.py", "tuf/ngclient/requests_fetcher.py")
# The oldest date that a zip can hold; `zipfile` would write the time of day.
_NO_TIME = (1980, 1, 1, 0, 0, 0)
_REGULAR_0644 = 0o100644 << 16
_FOLDER_0755 = (0o040755 << 16) | 0x10  # the DOS bit for folders, as zipfile sets it
_HELP_SECONDS = 60

_MAIN = '''\
"""Starts airgap. `--help` is answered from text that this program wrote when the file was made:
the whole command line would have to be compiled first."""

import sys

HELP = {help!r}

if sys.version_info < (3, 10):
    sys.exit("airgap needs Python 3.10 or newer; this is %d.%d" % sys.version_info[:2])
if HELP and sys.argv[1:] == ["--help"]:
    sys.stdout.write(HELP)
else:
    from airgap.cli import main

    main()
'''


def build(wheels: Iterable[bytes], scratch: Path) -> bytes:
    """The file's bytes. `wheels`: the bytes of LIBRARIES' wheels; `scratch`: a folder for its first
    run. Raises IntegrityError `kit.wheel`."""
    members = own_sources()
    for wheel in wheels:
        members.update(wheel_members(wheel))
    lacking = [n for n in LIBRARIES if f"{n}/__init__.py" not in members]
    if lacking:
        raise _bad_wheel(f"the pinned wheels hold no {', '.join(lacking)}")
    return _zip(members, _help_of(_zip(members, ""), scratch))


def own_sources() -> dict[str, bytes]:
    """Every module of the package `airgap`: name in the zip -> source."""
    folder = Path(airgap.__file__).parent
    with fsio.disk_errors(f"reading {folder}"):
        found = {
            path.relative_to(folder.parent).as_posix(): path.read_bytes()
            for path in folder.rglob("*.py")
        }
    if f"{folder.name}/__main__.py" not in found:
        raise UsageError(
            "kit.sources",
            "the sources of airgap are not where they were imported from",
            why=f"{folder} has no __main__.py",
            do="install sealift as a folder (pip does), not as a zip",
        )
    return found


def wheel_members(wheel: bytes) -> dict[str, bytes]:
    """What of a wheel goes in: modules, licences, metadata. Raises IntegrityError on native code
    and on modules that are not ours to expect."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/")]
            native = [n for n in names if n.endswith(_NATIVE)]
            if native:
                raise _bad_wheel(f"native code cannot be imported from a zip: {native[0]}")
            return {n: archive.read(n) for n in names if _wanted(n)}
    except zipfile.BadZipFile as e:
        raise _bad_wheel(str(e)) from e


def _wanted(name: str) -> bool:
    top, _, rest = name.partition("/")
    base = name.rpartition("/")[2]
    if top.endswith(".dist-info"):
        return rest == "METADATA" or "LICENSE" in base
    if top not in LIBRARIES or ".." in name.split("/"):
        raise _bad_wheel(f"it installs something else: {name}")
    if name.startswith(_LEFT_OUT) or base.startswith("test_"):
        return False
    return name.endswith(".py") or base == "LICENSE"


def _zip(members: Mapping[str, bytes], help_text: str) -> bytes:
    entries = {**members, "__main__.py": _MAIN.format(help=help_text).encode()}
    # zipimport finds a package without __init__.py only by an entry of its folder.
    folders = {f"{p}/" for n in entries for p in PurePosixPath(n).parents} - {"./"}
    out = io.BytesIO()
    out.write(SHEBANG)
    with zipfile.ZipFile(out, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted({*entries, *folders}):
            info = zipfile.ZipInfo(name, _NO_TIME)
            info.create_system = 3  # Unix, whatever builds it: the modes are Unix's
            info.external_attr = _FOLDER_0755 if name in folders else _REGULAR_0644
            archive.writestr(info, entries.get(name, b""))
    return out.getvalue()


def _help_of(pyz: bytes, scratch: Path) -> str:
    """What `--help` prints, asked of the file itself as a host would run it."""
    fsio.make_dirs(scratch)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="pyz-") as folder:
        path = Path(folder) / "airgap.pyz"
        fsio.write(path, pyz)
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(path), "--help"],
            capture_output=True,
            env={"COLUMNS": "80", "LC_ALL": "C.UTF-8", "PATH": os.defpath},
            encoding="utf-8",
            timeout=_HELP_SECONDS,
            check=False,
        )
    if done.returncode != 0 or not done.stdout:
        raise _bad_wheel(f"airgap.pyz does not run: {done.stderr.strip()[-500:]}")
    return done.stdout


def _bad_wheel(why: str) -> IntegrityError:
    return IntegrityError(
        "kit.wheel",
        "airgap.pyz cannot be made from the pinned wheels",
        why=why,
        do="install sealift again; if it stays, report it",
    )
