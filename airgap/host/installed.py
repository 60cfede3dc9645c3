"""`verify --installed`: every file of this host against what was approved, all changes at once.

Blobs against their names; models and wheels against the manifest that officers approved; the
environment against the RECORDs inside the approved wheels and against its own list of checksums.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airgap import fsio
from airgap.errors import IntegrityError, SealiftError
from airgap.events import Line, Sink, Warn, silent
from airgap.format.artifacts import Wheels
from airgap.format.types import FileEntry
from airgap.host import activate, inventory, seal
from airgap.host.audit import audit
from airgap.host.deployment import Deployment, load, trees
from airgap.host.inventory import Holding
from airgap.host.paths import DeploymentPaths, HostPaths
from airgap.meter import Meter
from airgap.parallel import each
from airgap.store import Store, hash_file

# An error names this many changes; the others are counted.
_SHOWN = 20
_RECORD = re.compile(r"[^/]+\.dist-info/RECORD")


@dataclass
class _Check:
    """One run: what was found wrong, the blobs whose bytes are right, and what lies in environments
    that were read already: versions share them."""

    paths: HostPaths
    sink: Sink
    wrong: list[str] = field(default_factory=list)
    right: set[str] = field(default_factory=set)
    measured: dict[Path, dict[str, str]] = field(default_factory=dict)

    def say(self, what: str) -> None:
        self.wrong.append(what)
        self.sink(Warn("installed.changed", what))


def verify_installed(paths: HostPaths, sink: Sink = silent) -> None:
    """Read every byte that is installed. Writes nothing and needs no lock.

    Raises IntegrityError `installed.changed` that names what is not as it was approved.
    """
    check = _Check(paths, sink)
    everything = inventory.holdings(paths)
    _check_store(check, everything)
    _check_ledger(check)
    for h in everything:
        if not h.stored_only:
            _check_deployment(check, h)
    if check.wrong:
        more = len(check.wrong) - _SHOWN
        rest = [f"and {more} more"] if more > 0 else []
        raise IntegrityError(
            "installed.changed",
            f"{len(check.wrong)} things on this host are not as they were approved",
            why="\n".join(check.wrong[:_SHOWN] + rest),
            do="find out who changed them; `airgap uninstall NAME VERSION` of every version named "
            "here (versions share environments), then install its bundle again: the import "
            "replaces damaged blobs",
        )
    sink(Line("verified", f"{len(check.right)} blobs, {len(everything)} installed"))


def _check_store(check: _Check, everything: tuple[Holding, ...]) -> None:
    """Each blob against its own name, and whether all that is needed is there."""
    store = Store(check.paths.store)
    sizes: dict[str, int] = {}
    for h in everything:
        sizes |= {b.sha256: b.size for b in h.manifest.blobs()} if h.manifest else {}
    found = sorted(p for p in store.blobs.iterdir()) if store.blobs.is_dir() else []
    for sha256 in sorted(set(sizes) - {p.name for p in found}):
        check.say(f"store: blob {sha256} is missing")
    meter = Meter(check.sink, "verify", sum(p.lstat().st_size for p in found), len(found))

    def work(path: Path) -> None:
        try:
            right = hash_file(path, meter.advance).sha256 == path.name
        except SealiftError:
            right = False
        if right:
            check.right.add(path.name)
        else:
            check.say(f"store: blob {path.name} has other bytes")
        meter.file_done()

    each(found, work, keep_going=True)
    meter.end()


def _check_ledger(check: _Check) -> None:
    try:
        audit(check.paths)
    except SealiftError as e:
        check.say(f"ledger: {e.what}: {e.why}")


def _check_deployment(check: _Check, h: Holding) -> None:
    try:
        deployment = load(check.paths, h.name, h.version)
    except SealiftError as e:
        if e.id == "host.not-staged":
            check.sink(Warn("installed.incomplete", f"{h.title} is the rest of a killed install"))
            return
        check.say(f"{h.title}: {e.why}")
        return
    place, manifest = deployment.paths, deployment.manifest
    _check_switch(check, deployment)
    _check_links(check, h.title, place, dict(trees(place, manifest)))
    if place.wheels.is_dir():
        _check_venv(check, deployment, place, manifest.wheels_to_serve())
    gateway = manifest.gateway_wheels()
    if gateway is not None:
        _check_venv(check, deployment, place.gateway, gateway)


def _check_switch(check: _Check, deployment: Deployment) -> None:
    """What its folder says it is, against what the ledger noted when it began to serve."""
    record, manifest = deployment.record, deployment.manifest
    name, version = manifest.name, manifest.version
    noted = activate.last_switch(check.paths, name, version)
    if noted is None:
        return
    here = {"manifest": deployment.digest}
    # What was staged anew since then and does not serve yet has another list by right; its switch
    # will note it.
    if check.paths.current_version(name) == version or record.staged <= noted.time:
        here |= {"environment": record.environment or "", "gateway": record.gateway or ""}
    for what, digest in here.items():
        if what in noted.data and noted.data[what] != digest:
            check.say(f"{deployment.title}: its {what} is not the one that began to serve")


def _check_links(
    check: _Check, title: str, place: DeploymentPaths, expected: Mapping[Path, FileEntry]
) -> None:
    """Links to right blobs, or files with the same bytes; nothing else lies beside them."""
    store = Store(check.paths.store)
    for path, f in expected.items():
        if f.sha256 in check.right and _same_file(path, store.blob_path(f.sha256)):
            continue
        try:
            right = hash_file(path).sha256 == f.sha256
        except SealiftError:
            right = False
        if not right:
            check.say(f"{title}: {path.relative_to(check.paths.root)} has other bytes or is gone")
    for folder in {place.folder / path.relative_to(place.folder).parts[0] for path in expected}:
        for extra in sorted(_files(folder) - set(expected)):
            check.say(f"{title}: {extra.relative_to(check.paths.root)} was added")


def _same_file(a: Path, b: Path) -> bool:
    try:
        return os.path.samestat(os.lstat(a), os.lstat(b))
    except FileNotFoundError:
        return False


def _files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if p.is_symlink() or not p.is_dir()}


def _check_venv(
    check: _Check, deployment: Deployment, place: DeploymentPaths, wheels: Wheels
) -> None:
    title, root = deployment.title, check.paths.root
    _check_links(check, title, place, {place.wheels / f.path: f for f in wheels.files})
    listed = seal.read(place)
    if listed is None:
        check.say(f"{title}: {place.sums.relative_to(root)} is missing")
        return
    found = _measured(check, place.venv)
    expected = listed[1]
    if listed[0] not in (deployment.record.environment, deployment.record.gateway):
        check.say(f"{title}: {place.sums.relative_to(root)} is not the one that was made")
    recorded: dict[str, set[str | None]] = {}
    for name, sha256 in _recorded(check, place, wheels):
        recorded.setdefault(name, set()).add(sha256)  # two wheels may bring one file
    for name in sorted(set(expected) | set(found) | set(recorded)):
        # The approved wheel's word is the better one.
        said = expected.get(name)
        if found.get(name) in (recorded.get(name) or {said}):
            continue
        how = (
            "was added"
            if name not in expected and name not in recorded
            else "has other bytes or is gone"
        )
        check.say(f"{title}: {(place.venv / name).relative_to(root)} {how}")


def _measured(check: _Check, venv: Path) -> dict[str, str]:
    real = venv.resolve()
    if real not in check.measured:
        check.measured[real] = seal.measure(real, check.sink)
    return check.measured[real]


def _recorded(check: _Check, place: DeploymentPaths, wheels: Wheels) -> Iterator[tuple[str, str]]:
    """What the approved wheels install into site-packages: path below the environment, SHA-256."""
    site = next(place.venv.glob("lib/python3*/site-packages"), None)
    if site is None:
        return
    prefix = str(site.relative_to(place.venv))
    for f in wheels.files:
        blob = Store(check.paths.store).blob_path(f.sha256)
        if f.sha256 not in check.right:
            continue  # said already
        for name, sha256 in _record_of(blob):
            yield f"{prefix}/{name}", sha256


def _record_of(wheel: Path) -> Iterator[tuple[str, str]]:
    """The wheel's own RECORD, at its top: setuptools carries those of others deeper inside."""
    with fsio.disk_errors(f"reading {wheel}"), zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if _RECORD.fullmatch(n))
        rows = csv.reader(io.StringIO(archive.read(name).decode("utf-8")))
        for path, digest, *_ in rows:
            algorithm, _, value = digest.partition("=")
            # Under NAME.data/ lies what an installer moves and may rewrite (script first lines).
            moved = ".data/" in path.split("/")[0] + "/"
            # What a wheel brings compiled is compiled anew: the list of checksums decides.
            if algorithm == "sha256" and not moved and "__pycache__" not in path.split("/"):
                padded = value + "=" * (-len(value) % 4)
                yield path, base64.urlsafe_b64decode(padded).hex()
