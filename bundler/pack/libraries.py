"""Libraries of native code for the hosts that a kit is for: they cannot be imported from a zip, so
they travel beside it as wheels, each on the fingerprint sheet, and `install.sh` unpacks those of
the host's own Python.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

from airgap import fsio
from airgap.errors import FormatError, IntegrityError, UsageError
from airgap.events import Sink
from airgap.format.artifact_rules import wheel_name_version
from airgap.format.artifacts import LockedFile
from airgap.format.request import TargetRequest, WheelsRequest
from airgap.format.types import Target
from bundler import facts
from bundler.fetch import download
from bundler.fetch.wheels import lock_wheels
from bundler.workspace import Workspace

REQUIREMENTS = Path(__file__).with_name("kit-libraries.txt")
WHEELS = "wheels"
_TARGET = re.compile(r"python=(?P<python>[^,=]+),platform=(?P<platform>[^,=]+)")
_UV_PROGRAM = re.compile(r"uv-[^/]+\.data/scripts/uv")
# uv 0.13 has 65 MB.
_MAX_UV_BYTES = 512 * 1024 * 1024


def listing_name(python: str) -> str:
    """The file that `install.sh` gives to uv on a host of that Python."""
    return f"libraries-{python}.txt"


def parse_target(text: str) -> Target:
    """`python=3.12,platform=x86_64-manylinux_2_34`. Raises UsageError `kit.target`."""
    found = _TARGET.fullmatch(text)
    try:
        if found is None:
            raise FormatError("format.value", "", "it names no python and platform")
        return Target(**found.groupdict(), accelerator="cpu")
    except FormatError as e:
        raise UsageError(
            "kit.target",
            f"{text!r} is not a target",
            why=f"{e.where}: {e.why}" if e.where else e.why,
            do="write --target python=3.12,platform=x86_64-manylinux_2_34, or --host host.json",
        ) from e


def measured_target(host: Path) -> Target:
    """The target of a host that `airgap facts` measured: the Python that runs airgap there."""
    found = facts.read(host)
    return facts.target(found, TargetRequest(facts=host.name, accelerator="cpu"))


def collect(targets: Sequence[Target], workspace: Workspace, sink: Sink) -> dict[str, bytes]:
    """Name in the kit -> bytes: wheels, a listing for each Python, and uv for the targets' machine.

    Raises UsageError `kit.machines`, SourceError, IntegrityError.
    """
    machines = {t.platform.partition("-")[0] for t in targets}
    if len(machines) > 1:
        raise UsageError(
            "kit.machines",
            f"one kit cannot be for {' and '.join(sorted(machines))}",
            why="it has one uv, and that is a program of one machine",
            do="make a kit for each",
        )
    out: dict[str, bytes] = {}
    by_python: dict[str, set[LockedFile]] = {}
    for target in targets:
        for file in _lock(target, workspace, sink):
            data = _bytes(file, workspace)
            if file.path.name.startswith("uv-"):
                out["uv"] = _program(data)
                continue
            out[f"{WHEELS}/{file.path.name}"] = data
            by_python.setdefault(target.python, set()).add(file)
    for python, files in by_python.items():
        out[listing_name(python)] = _listing(files)
    return out


def _lock(target: Target, workspace: Workspace, sink: Sink) -> tuple[LockedFile, ...]:
    lines = REQUIREMENTS.read_text("utf-8").splitlines()
    wanted = tuple(line for line in lines if line and not line.startswith("#"))
    request = WheelsRequest(name="libraries", requirements=wanted)
    locked = lock_wheels(request, target, workspace.home, workspace, sink)
    remote = [download.Item(f.url, f.sha256, f.size, str(f.path)) for f in locked.files if f.url]
    download.fetch(remote, workspace.store, sink)
    return locked.files


def _bytes(file: LockedFile, workspace: Workspace) -> bytes:
    blob = workspace.store.blob_path(file.sha256)
    with fsio.disk_errors(f"reading {blob}"):
        data = blob.read_bytes()
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise _bad(file.path.name, f"{blob} is not what was locked: delete it")
    return data


def _listing(files: set[LockedFile]) -> bytes:
    """One version a line, with the hash of each wheel of it: two hosts of one Python may differ."""
    hashes: dict[str, list[str]] = {}
    for f in sorted(files, key=lambda f: f.path.name):
        name, version = wheel_name_version(f.path.name)
        hashes.setdefault(f"{name}=={version}", []).append(f"--hash=sha256:{f.sha256}")
    return "".join(f"{line} {' '.join(found)}\n" for line, found in hashes.items()).encode()


def _program(wheel: bytes) -> bytes:
    """uv out of its wheel, whose bytes were checked."""
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            for info in archive.infolist():
                if _UV_PROGRAM.fullmatch(info.filename) and info.file_size <= _MAX_UV_BYTES:
                    return archive.read(info)
    except zipfile.BadZipFile as e:
        raise _bad("uv's wheel", str(e)) from e
    raise _bad("uv's wheel", "there is no program in it")


def _bad(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        "kit.wheel",
        f"{name} cannot go into the kit",
        why=why,
        do="run the same command again; if it stays, report it",
    )
