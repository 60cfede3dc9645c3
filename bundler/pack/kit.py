"""The installer kit: what an isolated host needs before its first bundle.

    airgap.pyz   the isolated side, for the host's own Python 3.10+
    install.sh   checks all by the sheet and puts it into a folder of its own
    uv           installs wheels fast; pip is used without it
    wheels/      libraries of native code for the named targets (`libraries`), when there are any
    root.json    the officers' keys, when there are any yet
    README.txt   what to type
    airgap-fingerprints.txt   the sheet: travels on another way than the kit

The sheet is written last, so a kit without it is not complete.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import canonicalize_name, parse_wheel_filename

from airgap import fsio
from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Line, Sink, silent
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.fetch import download, resolver
from bundler.fetch.wheels import lock_wheels
from bundler.pack import libraries, pyz
from bundler.workspace import Workspace

PYZ, UV, ROOT, README = "airgap.pyz", "uv", "root.json", "README.txt"
INSTALL = "install.sh"
SHEET = "airgap-fingerprints.txt"
REQUIREMENTS = Path(__file__).with_name("kit-requirements.txt")
README_TEXT = Path(__file__).with_name("kit-readme.txt")
# The oldest Python that a host may have. Pure-Python wheels: the platform only satisfies uv.
_OLDEST = Target(python="3.10", platform="x86_64-manylinux_2_28", accelerator="cpu")
_LISTING = re.compile(r"libraries-3\.[0-9]{1,2}\.txt")
_PIN = re.compile(r"([a-z0-9-]+==[0-9][0-9.]*) --hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Kit:
    """A complete kit in `folder`; `sheet` has the SHA-256 of all that is run or trusted."""

    folder: Path
    sheet: Path

    @property
    def pyz(self) -> Path:
        """The isolated side's program."""
        return self.folder / PYZ


def build_kit(
    out: Path,
    root_json: bytes | None,
    *,
    cache: Path,
    targets: Sequence[Target] = (),
    sink: Sink = silent,
) -> Kit:
    """Write the kit into `out`, which may be new, empty, or hold an older kit.

    `cache`: where the pinned wheels are kept. `targets`: the hosts that libraries are brought for;
    uv is then theirs, else this machine's. Same sources, uv and root: same bytes.
    Raises UsageError `kit.not-empty`, SourceError when the wheels cannot be had, IntegrityError
    `kit.pin` when an index serves other bytes than the pinned ones.
    """
    _check_folder(out)
    wheels = pinned_wheels(cache / "kit", sink)
    files = {PYZ: pyz.build(wheels, cache / "kit"), INSTALL: _installer()}
    files |= libraries.collect(targets, Workspace(cache / "kit"), sink) or {UV: _uv()}
    if root_json is not None:
        files[ROOT] = root_json
    sheet = sums(files)
    files[README] = _readme(files, targets).encode()
    _clear(out)
    for name, data in files.items():
        fsio.make_dirs((out / name).parent)
        fsio.write(out / name, data, 0o755 if name in (PYZ, UV, INSTALL) else 0o644)
    fsio.write(out / SHEET, sheet)
    sink(Line("kit", f"{PYZ} {len(files[PYZ]):,} bytes, {UV} {len(files[UV]):,} bytes"))
    return Kit(out, out / SHEET)


def sums(files: dict[str, bytes]) -> bytes:
    """The sheet, as `sha256sum -c` reads it."""
    lines = [f"{hashlib.sha256(d).hexdigest()}  {n}\n" for n, d in sorted(files.items())]
    return "".join(lines).encode()


def _check_folder(out: Path) -> None:
    if not out.exists():
        return
    with fsio.disk_errors(f"reading {out}"):
        others = {p.name for p in out.iterdir() if not _of_a_kit(p)}
    if others:
        raise UsageError(
            "kit.not-empty",
            f"{out} holds something else than a kit: {sorted(others)[0]}",
            why="a kit is a folder of its own, so that nothing in it goes unchecked",
            do=f"name a folder of its own, for example {out / 'kit'}",
        )


def _of_a_kit(path: Path) -> bool:
    """Whether an older kit may have that file or folder."""
    name = path.name
    if name == libraries.WHEELS and path.is_dir() and not path.is_symlink():
        return all(
            p.suffix == ".whl" or p.name.startswith(fsio.TEMP_PREFIX) for p in path.iterdir()
        )
    known = name in (PYZ, UV, ROOT, README, SHEET, INSTALL) or bool(_LISTING.fullmatch(name))
    return known or name.startswith(fsio.TEMP_PREFIX)


def _clear(out: Path) -> None:
    """Take an older kit away, its sheet first."""
    fsio.make_dirs(out)
    fsio.sweep(out)
    with fsio.disk_errors(f"writing {out}"):
        for name in (SHEET, README, ROOT, UV, PYZ, INSTALL):
            (out / name).unlink(missing_ok=True)
        for path in list(out.iterdir()):
            if _LISTING.fullmatch(path.name):
                path.unlink()
        if (out / libraries.WHEELS).exists():
            fsio.remove_tree(out / libraries.WHEELS)
        fsio.fsync_dir(out)


def pins() -> dict[str, str]:
    """`name==version` -> SHA-256 of the wheel, in the order of the file."""
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    found = [_PIN.fullmatch(line) for line in lines if not line.startswith("#")]
    return {m[1]: m[2] for m in found if m}


def pinned_wheels(place: Path, sink: Sink = silent) -> list[bytes]:
    """The pinned wheels' bytes, each hashed now; from `place` when they were fetched before."""
    pinned = pins()
    workspace = Workspace(place)
    blobs = [workspace.store.blob_path(sha256) for sha256 in pinned.values()]
    if not all(b.is_file() for b in blobs):
        _fetch(tuple(pinned), workspace, sink)
    return [_read(b, requirement) for b, requirement in zip(blobs, pinned, strict=True)]


def _fetch(requirements: Sequence[str], workspace: Workspace, sink: Sink) -> None:
    """From the indexes that pip and uv are configured with, as every wheel of a request."""
    request = WheelsRequest(name="kit", requirements=tuple(requirements))
    locked = lock_wheels(request, _OLDEST, workspace.home, workspace, sink)
    wanted = {canonicalize_name(r.partition("==")[0]): sha256 for r, sha256 in pins().items()}
    # What they depend on and the kit does not carry is locked too: it stays where it is.
    named = [(wanted.get(parse_wheel_filename(f.path.name)[0]), f) for f in locked.files]
    files = [(sha256, f) for sha256, f in named if sha256 is not None]
    for sha256, file in files:
        if file.sha256 != sha256:
            raise _other(str(file.path), f"{file.label} offers sha256 {file.sha256}")
    remote = [download.Item(f.url, f.sha256, f.size, str(f.path)) for _, f in files if f.url]
    download.fetch(remote, workspace.store, sink)


def _read(blob: Path, requirement: str) -> bytes:
    with fsio.disk_errors(f"reading {blob}"):
        data = blob.read_bytes() if blob.is_file() else b""
    found = hashlib.sha256(data).hexdigest()
    if found != blob.name:
        raise _other(requirement, f"{blob} has sha256 {found}")
    return data


def _other(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        "kit.pin",
        f"{name} is not the wheel that the kit is made of",
        why=why,
        do="delete that file, or take the index that serves it out of pip's and uv's "
        "configuration, then run this again",
    )


def _installer() -> bytes:
    path = Path(__file__).with_name(INSTALL)
    with fsio.disk_errors(f"reading {path}"):
        return path.read_bytes()


def _uv() -> bytes:
    """The uv that resolved the wheels here; its licence is Apache-2.0 or MIT."""
    found = shutil.which(resolver.find_uv())
    if found is None:
        raise SourceError(
            "source.uv",
            "there is no uv to put into the kit",
            why="neither the package uv nor a uv on PATH was found",
            do="install the connected side again: pip install 'sealift[connected]'",
        )
    with fsio.disk_errors(f"reading {found}"), open(found, "rb") as f:
        return f.read()


def _readme(files: dict[str, bytes], targets: Sequence[Target]) -> str:
    machine = targets[0].platform.partition("-")[0] if targets else os.uname().machine
    root = (
        ""
        if ROOT in files
        else "Get root.json, the officers' keys, and its fingerprint first.\n   "
    )
    pythons = sorted({t.python for t in targets}, key=lambda v: int(v.partition(".")[2]))
    brought = _BROUGHT.format(pythons=", ".join(pythons)) if targets else _NOT_BROUGHT
    text = README_TEXT.read_text("utf-8")
    return text.format(sheet=SHEET, root=root, machine=machine, brought=brought)


_BROUGHT = """\
wheels/ has cryptography and blake3 for Python {pythons}: install.sh unpacks those of this host's
own. Without them airgap checks Ed25519 signatures only, which is what officers have unless they
chose otherwise."""
_NOT_BROUGHT = """\
This kit brings no libraries: airgap checks Ed25519 signatures, which is what officers have unless
they chose otherwise. `sealift kit --target ...` brings cryptography and blake3."""
