"""A dump for whoever helps from afar: state, history and the ends of logs, no secrets, no prompts.

It is made of a list of what goes in, never of what is left out: keys, certificates, models, wheels
and environments are not on it.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import airgap
from airgap import fsio, limits
from airgap.errors import SealiftError
from airgap.host import facts, inventory, logs, redact, theirs
from airgap.host.paths import DeploymentPaths, HostPaths
from airgap.host.status import status


def dump(paths: HostPaths, out: Path, now: int) -> tuple[str, ...]:
    """Write `out` (.tar.gz, mode 0600); returns the names in it. Needs no lock."""
    members = dict(_members(paths))
    archive = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", mtime=now) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, text in sorted(members.items()):
            data = text.encode("utf-8", "replace")
            member = tarfile.TarInfo(f"airgap-support/{name}")
            member.size, member.mtime, member.mode = len(data), now, 0o600
            tar.addfile(member, io.BytesIO(data))
    fsio.write(out, archive.getvalue(), 0o600)
    return tuple(sorted(members))


def _members(paths: HostPaths) -> Iterator[tuple[str, str]]:
    secrets = [
        p for h in inventory.holdings(paths) if h.manifest for p in redact.prompts(h.manifest)
    ]
    yield "README.txt", _README
    yield "airgap.txt", f"{airgap.__version__}, Python {sys.version.split()[0]}\n"
    yield "host.json", _host(paths)
    yield "status.json", _status(paths)
    for path in (paths.ledger, paths.policy, paths.launch):
        yield from _whole(paths, path, secrets)
    for path in sorted(paths.receipts.glob("*.json")) if paths.receipts.is_dir() else ():
        yield from _whole(paths, path, secrets)
    for name in inventory.names(paths):
        front = paths.front(name)
        for path in (front.state, paths.probation(name)):
            yield from _whole(paths, path, secrets)
        for log in (front.log, paths.door(name).log):
            yield from _end(paths, log, secrets)
    for h in inventory.holdings(paths):
        if h.manifest is not None:
            shown = redact.manifest(h.manifest).to_bytes().decode()
            yield f"manifests/{h.name}-{h.version}.json", shown
        if not h.stored_only:
            place = paths.deployment(h.name, h.version)
            yield from _deployment(paths, place, secrets)
            yield from _deployment(paths, place.gateway, secrets)


def _deployment(
    paths: HostPaths, place: DeploymentPaths, secrets: list[str]
) -> Iterator[tuple[str, str]]:
    for path in (place.record, place.endpoint):
        yield from _whole(paths, path, secrets)
    for path in (place.engine_log, place.supervisor_log, place.logs / "give-back.log"):
        yield from _end(paths, path, secrets)


def _whole(paths: HostPaths, path: Path, secrets: list[str]) -> Iterator[tuple[str, str]]:
    name = str(path.relative_to(paths.root))
    try:
        data = theirs.read(path, limits.MAX_DOCUMENT_BYTES)
    except SealiftError as e:
        yield name, _said(e)
        return
    if data is not None:
        yield name, redact.text(data.decode("utf-8", "replace"), secrets)


def _end(paths: HostPaths, path: Path, secrets: list[str]) -> Iterator[tuple[str, str]]:
    name = str(path.relative_to(paths.root))
    try:
        said = logs.tail(path, lines=limits.SUPPORT_LOG_LINES, max_bytes=limits.SUPPORT_LOG_BYTES)
    except SealiftError as e:
        yield name, _said(e)
        return
    if said:
        yield name, redact.text(said, secrets) + "\n"


def _status(paths: HostPaths) -> str:
    """What `airgap status` says."""
    try:
        return json.dumps([dataclasses.asdict(s) for s in status(paths)], indent=1)
    except SealiftError as e:
        return _said(e)


def _host(paths: HostPaths) -> str:
    """What kind of machine it is, as `airgap facts` says it."""
    try:
        return facts.measure(paths).to_bytes().decode()
    except SealiftError as e:
        return _said(e)


def _said(e: SealiftError) -> str:
    """In place of what cannot be shown: who helps from afar has to know."""
    return f"{e.id}: {e.what}: {e.why}\n"


_README = """\
Made by `airgap support`. Read it before you carry it out.
Left out: keys, certificates, models, wheels, environments, the prompts of the manifests' checks,
and in logs whatever looks like a key, a prompt or an answer. Manifests are shown without their
checks, so their digests differ from the approved ones; status.json has those.
"""
