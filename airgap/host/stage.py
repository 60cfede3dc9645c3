"""Staging: from blobs of the store to a deployment that can be started. Nothing is copied.

The record is written last. Without it the folder is the rest of a killed run and is made again.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from airgap import fsio, limits
from airgap.engines.registry import engine_for
from airgap.errors import FormatError, HostError, IntegrityError
from airgap.events import Line, Sink, silent
from airgap.format import chat_template
from airgap.format.manifest import Manifest
from airgap.format.types import FileEntry
from airgap.host import locks
from airgap.host.deployment import Deployment, DeploymentRecord, load, read_record, trees
from airgap.host.gateway import service as gateway
from airgap.host.paths import CURRENT, DeploymentPaths, HostPaths
from airgap.host.runtimes import Made, runtime_for
from airgap.store import Store


def stage(
    paths: HostPaths,
    manifest: Manifest,
    digest: str,
    sink: Sink = silent,
    *,
    uv: Path | None = None,
    kit: Path | None = None,
) -> Deployment:
    """Make `deployments/NAME/VERSION` of a verified manifest whose blobs are all in the store.

    Idempotent: a complete deployment of the same manifest is returned as it is; an incomplete one
    is removed and made again. `uv` is the installer to use; `kit` the folder that may hold one.
    The caller holds the host's lock. Raises HostError `host.version-taken` when that version is
    here with another manifest, and what the runtime raises.
    """
    _check_digest(manifest, digest)
    engine_for(manifest).check(manifest)
    place = paths.deployment(manifest.name, manifest.version)
    runtime = runtime_for(paths, manifest, uv=uv, kit=kit)
    if _is_staged(place, digest):
        relink_files(Store(paths.store), trees(place, manifest))
        runtime.renew(manifest, sink)
        gateway.renew(paths, manifest, sink)
        sink(Line("stage", f"{manifest.name} {manifest.version} is staged already"))
        return load(paths, manifest.name, manifest.version)
    runtime.choose(manifest)
    tools = gateway.choose(paths, manifest, uv, kit)
    fsio.remove_tree(place.folder)
    fsio.make_dirs(place.folder, 0o755)
    fsio.make_dirs(place.run, 0o700)
    fsio.make_dirs(place.logs, 0o700)
    fsio.write(place.manifest, manifest.to_bytes(), 0o444)
    store = Store(paths.store)
    link_files(store, trees(place, manifest))
    write_template(place, manifest)
    link_files(store, runtime.files(place, manifest))
    made = runtime.build(place, manifest, sink)
    sealed = gateway.stage(paths, place, manifest, partial(link_files, store), tools, sink)
    _seal(place, manifest, digest, made, sealed)
    return load(paths, manifest.name, manifest.version)


def _check_digest(manifest: Manifest, digest: str) -> None:
    if hashlib.sha256(manifest.to_bytes()).hexdigest() != digest:
        raise IntegrityError(
            "deployment.digest",
            f"the manifest of {manifest.name} {manifest.version} is not the one that was verified",
            why="its SHA-256 differs from the approved one",
            do="verify the bundle again and report this: it is a fault of this program",
        )
    if manifest.version == CURRENT:
        raise HostError(
            "host.version-reserved",
            f"the version of {manifest.name} cannot be '{CURRENT}'",
            why="a link of that name says which version serves",
            do="approve the bundle under another version",
        )


def _is_staged(place: DeploymentPaths, digest: str) -> bool:
    record = read_record(place)
    if record is None:
        return False
    if record.manifest != digest:
        raise HostError(
            "host.version-taken",
            f"{place.name} {place.version} is on this host with another manifest",
            why=f"staged: {record.manifest[:16]}, this bundle: {digest[:16]}",
            do="give the bundle another version; two contents under one version are never mixed",
        )
    lives = any(locks.holder(p.supervisor_lock) is not None for p in (place, place.gateway))
    return lives or _has_environments(place)


def _has_environments(place: DeploymentPaths) -> bool:
    """Those that its links name: they are shared, and may have been lost without it."""
    links = [p.venv for p in (place, place.gateway) if p.venv.is_symlink()]
    return all((venv / "bin" / "python").exists() for venv in links)


def link_files(store: Store, files: Iterable[tuple[Path, FileEntry]]) -> None:
    """Hard links of the store's blobs, read-only, names fsynced.

    Raises IntegrityError `store.missing` when the store has no blob of that name and size.
    """
    made: set[Path] = set()
    for target, f in files:
        if not store.has(f.sha256, f.size):
            raise IntegrityError(
                "store.missing",
                f"the store does not hold {f.path} whole",
                why=f"no blob {f.sha256[:16]} of {f.size} bytes lies there",
                do="install from the medium again",
            )
        fsio.make_dirs(target.parent)
        with fsio.disk_errors(f"linking {target}"):
            os.link(store.blob_path(f.sha256), target, follow_symlinks=False)
            if os.lstat(target).st_mode & 0o222:
                os.chmod(target, 0o444)
        made.add(target.parent)
    for parent in made:
        with fsio.disk_errors(f"linking into {parent}"):
            fsio.fsync_dir(parent)


def relink_files(store: Store, files: Iterable[tuple[Path, FileEntry]]) -> None:
    """Point each name at the store's blob again where it is another file: an import replaces a
    blob that it found damaged, and the deployment must not keep the damaged one."""
    for target, f in files:
        blob = store.blob_path(f.sha256)
        with fsio.disk_errors(f"linking {target}"):
            if target.exists() and os.path.samefile(blob, target):
                continue
            temp = fsio.temp_name(target.parent)
            os.link(blob, temp, follow_symlinks=False)
            os.rename(temp, target)
            fsio.fsync_dir(target.parent)


def write_template(place: DeploymentPaths, manifest: Manifest) -> None:
    """The chat template that the model tree holds, as a file of its own for the engine: exactly
    the approved one. Raises IntegrityError `deployment.chat-template`."""
    model = manifest.model_to_serve()
    sources = {}
    for f in model.files:
        if str(f.path) in chat_template.SOURCES:
            with fsio.disk_errors(f"reading {f.path}"), open(place.model / f.path, "rb") as file:
                sources[str(f.path)] = file.read(limits.MAX_DOCUMENT_BYTES)
    try:
        text = chat_template.find(sources)
    except FormatError as e:
        raise _wrong_template(model.name, f"{e.where}: {e.why}") from e
    found = None if text is None else hashlib.sha256(text.encode()).hexdigest()
    if found != model.chat_template:
        approved = model.chat_template[:16] if model.chat_template else "none"
        raise _wrong_template(model.name, f"approved: {approved}, found: {found or 'none'}")
    if text is not None:
        fsio.write(place.chat_template, text.encode(), 0o444)


def _wrong_template(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        "deployment.chat-template",
        f"the chat template of the model '{name}' is not the one that was approved",
        why=why,
        do="have the bundle built and approved again; a template is a program that the engine runs",
    )


def _seal(
    place: DeploymentPaths, manifest: Manifest, digest: str, made: Made, gateway_sums: str | None
) -> None:
    """The record last: all before it is fsynced, the environment by its own builder."""
    record = DeploymentRecord(
        name=manifest.name,
        version=manifest.version,
        manifest=digest,
        engine=engine_for(manifest).name,
        python=made.python,
        installer=made.installer,
        staged=int(time.time()),
        environment=made.sums,
        gateway=gateway_sums,
    )
    fsio.write(place.record, record.to_bytes(), 0o444)
