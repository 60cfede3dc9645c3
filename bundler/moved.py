"""What the sources of a request mean today, held against its lock. Nothing is fetched or changed.

A repository is asked for its tree, an index for its wheels, a registry for its digest; a local
folder is hashed. Plain files are pinned in the request itself: they cannot move, only vanish.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from airgap import limits
from airgap.errors import SourceError
from airgap.events import Sink, silent
from airgap.format.artifacts import LockedArtifact, LockedImage, LockedModel
from airgap.format.lock import Lock
from airgap.format.request import ImageRequest, Request, WheelsRequest
from airgap.store import hash_file
from bundler.fetch import hub, local
from bundler.fetch.choice import WEIGHTS
from bundler.fetch.hub_api import Hub
from bundler.fetch.images import image_digest
from bundler.fetch.tree import TreeRequest
from bundler.fetch.wheels import choose_wheels
from bundler.workspace import Workspace


@dataclass(frozen=True)
class Moved:
    """One difference: the artifact's name, and what is different in words."""

    artifact: str
    text: str


def find(
    request: Request, lock: Lock, *, base: Path, workspace: Workspace, sink: Sink = silent
) -> list[Moved]:
    """Everything that moved since `lock` was made of `request`, by artifact.

    Raises UsageError, SourceError and IntegrityError as a lock would.
    """
    locked = {a.name: a for a in lock.artifacts}
    out: list[Moved] = []
    trees: tuple[TreeRequest, ...] = (*request.model, *request.adapter)
    for tree in trees:
        out += _tree(tree, locked[tree.name], base, sink)
    for wheels in request.wheels:
        out += _wheels(wheels, locked[wheels.name], lock, base, workspace, sink)
    for image in request.image:
        out += _image(image, locked[image.name], sink)
    return sorted(out, key=lambda m: m.artifact)


def refuse(moved: list[Moved]) -> None:
    """Raise SourceError `lock.moved` when anything did."""
    if moved:
        names = ", ".join(dict.fromkeys(m.artifact for m in moved))
        raise SourceError(
            "lock.moved",
            f"the sources moved since the lock was made: {names}",
            why=f"{len(moved)} differences, listed above; the lock and what it names are as before",
            do="to take the newer state, run `sealift lock` and have it approved anew",
        )


def _tree(request: TreeRequest, locked: LockedArtifact, base: Path, sink: Sink) -> Iterator[Moved]:
    formats = WEIGHTS if isinstance(locked, LockedModel) else ("safetensors",)
    before = {str(f.path): f.sha256 for f in locked.files}
    if request.repo is None:
        _, found = local.find(request, base, sink)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, limits.MAX_COPY_WORKERS)) as pool:
            digests = list(pool.map(lambda f: hash_file(f.file).sha256, found))
        now = {str(f.path): d for f, d in zip(found, digests, strict=True)}
        yield from _files(locked.name, before, now)
        return
    listing = hub.listing(request, Hub.find(sink), sink, formats)
    commit, was = listing.revision.commit, getattr(locked, "revision", "")
    if commit != was:
        yield Moved(locked.name, f"{request.revision} was {was}, is {commit}")
    # The tree names small files by git id only, and the lock kept that id of each.
    before = {str(f.path): f.git_blob or f.sha256 for f in locked.files}
    now = {str(path): f.git_blob or str(f.sha256) for path, f in listing.files.items()}
    yield from _files(locked.name, before, now)


def _wheels(
    request: WheelsRequest,
    locked: LockedArtifact,
    lock: Lock,
    base: Path,
    workspace: Workspace,
    sink: Sink,
) -> Iterator[Moved]:
    _, chosen = choose_wheels(request, lock.target, base, workspace, sink)
    before = {str(f.path): f.sha256 for f in locked.files}
    yield from _files(locked.name, before, {c.filename: c.sha256 for c in chosen})


def _image(request: ImageRequest, locked: LockedArtifact, sink: Sink) -> Iterator[Moved]:
    now = image_digest(request, sink)
    if isinstance(locked, LockedImage) and now != locked.digest:
        text = f"{locked.reference} was sha256:{locked.digest}, is sha256:{now}"
        yield Moved(locked.name, text)


def _files(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Moved]:
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            yield Moved(name, f"gone     {path}")
        elif path not in before:
            yield Moved(name, f"new      {path}")
        elif before[path] != now[path]:
            yield Moved(name, f"changed  {path}")
