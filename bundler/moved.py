"""What the sources of a request mean today, held against its lock. Nothing is fetched or changed.

A repository is asked for its tree, an index for its wheels, a registry for its digest; a local
folder is hashed. Plain files are pinned in the request itself, so their servers are only asked
whether they are still there and as long as they were. A source that does not answer keeps nobody
from hearing about the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from airgap import limits
from airgap.errors import IntegrityError, SourceError
from airgap.events import Sink, silent
from airgap.format.artifacts import LockedArtifact, LockedImage, LockedModel
from airgap.format.lock import Lock
from airgap.format.request import ImageRequest, Request, WheelsRequest
from airgap.store import hash_file
from bundler.fetch import hub, local
from bundler.fetch.choice import WEIGHTS
from bundler.fetch.glance import Glance, glance
from bundler.fetch.hub_api import Hub
from bundler.fetch.images import see_image
from bundler.fetch.item import Item
from bundler.fetch.options import Options
from bundler.fetch.tree import TreeRequest
from bundler.fetch.wheels import choose_wheels
from bundler.workspace import Workspace


@dataclass(frozen=True)
class Moved:
    """One difference: the artifact's name, and what is different in words."""

    artifact: str
    text: str


@dataclass(frozen=True)
class Unanswered:
    """An artifact, or a file of it, of which nobody can say whether it moved, and why."""

    artifact: str
    error: SourceError | IntegrityError

    @property
    def text(self) -> str:
        """What kept it, in one line."""
        e = self.error
        return f"unknown  {e.id}: {e.what}: {e.why}; {e.do}"


@dataclass(frozen=True)
class Compared:
    """Everything that moved, and everything of which that is not known, by artifact."""

    moved: tuple[Moved, ...]
    unanswered: tuple[Unanswered, ...]

    @property
    def lines(self) -> list[Moved | Unanswered]:
        """Both together, by artifact."""
        return sorted([*self.moved, *self.unanswered], key=lambda m: m.artifact)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        unknown = [
            {"artifact": u.artifact, "id": u.error.id, "why": u.error.why, "do": u.error.do}
            for u in self.unanswered
        ]
        return {"moved": [vars(m) for m in self.moved], "unknown": unknown}


_Difference = Moved | Unanswered


def find(
    request: Request,
    lock: Lock,
    *,
    base: Path,
    workspace: Workspace,
    sink: Sink = silent,
    connections: int = Options.connections,
) -> Compared:
    """Everything that is different since `lock` was made of `request`. Servers of plain files are
    asked over at most `connections` at once.

    Raises UsageError and DiskError as a lock would; what a source did wrong is in the result.
    """
    locked = {a.name: a for a in lock.artifacts}
    asked: list[tuple[str, Callable[[], Iterator[_Difference]]]] = []
    trees: tuple[TreeRequest, ...] = (*request.model, *request.adapter)
    for t in trees:
        asked.append((t.name, partial(_tree, t, locked[t.name], base, sink)))
    for w in request.wheels:
        asked.append((w.name, partial(_wheels, w, locked[w.name], lock, base, workspace, sink)))
    for i in request.image:
        asked.append((i.name, partial(_image, i, locked[i.name], sink)))
    for name in dict.fromkeys(f.name for f in request.file):
        asked.append((name, partial(_plain, locked[name], connections)))
    out = [d for name, ask in asked for d in _answered(name, ask)]
    moved = tuple(d for d in out if isinstance(d, Moved))
    return Compared(moved, tuple(d for d in out if isinstance(d, Unanswered)))


def _answered(name: str, ask: Callable[[], Iterator[_Difference]]) -> list[_Difference]:
    """The differences of one artifact, up to where its source failed."""
    out: list[_Difference] = []
    try:
        out.extend(ask())
    except (SourceError, IntegrityError) as e:
        out.append(Unanswered(name, e))
    return out


def refuse(found: Compared) -> None:
    """Raise `lock.incomplete` when a source did not answer (IntegrityError when one answered with
    what it must not), else SourceError `lock.moved` when anything moved."""
    if found.unanswered:
        names = ", ".join(sorted({u.artifact for u in found.unanswered}))
        errors = [u.error for u in found.unanswered]
        kind = IntegrityError if any(isinstance(e, IntegrityError) for e in errors) else SourceError
        raise kind(
            "lock.incomplete",
            f"of {names} nobody can say whether it moved",
            why=f"answers that are missing: {len(errors)}, each with its reason above; "
            f"differences that were found: {len(found.moved)}",
            do="do what the lines that begin with `unknown` say, and check again",
        )
    moved = found.moved
    if moved:
        names = ", ".join(sorted({m.artifact for m in moved}))
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
    """Another image, or the same with another index above or other signatures beside it."""
    now = see_image(request, sink).artifact
    if isinstance(locked, LockedImage) and now.digest != locked.digest:
        text = f"{locked.reference} was sha256:{locked.digest}, is sha256:{now.digest}"
        yield Moved(locked.name, text)
        return
    before = {str(f.path): f.sha256 for f in locked.files}
    yield from _files(locked.name, before, {str(f.path): f.sha256 for f in now.files})


def _plain(locked: LockedArtifact, connections: int) -> Iterator[_Difference]:
    """Bytes are pinned in the request; a server's word about their number is all there is."""
    files = [f for f in locked.files if f.url is not None]
    items = [Item(str(f.url), f.sha256, f.size, str(f.path)) for f in files]
    for file, seen in zip(files, glance(items, connections), strict=True):
        if not isinstance(seen, Glance):
            yield Unanswered(locked.name, seen)
        elif seen.gone:
            yield Moved(locked.name, f"gone     {file.path}")
        elif seen.size is None:
            yield Unanswered(locked.name, _no_length(str(file.path)))
        elif seen.size != file.size:
            text = f"changed  {file.path}: it had {file.size:,} bytes, now {seen.size:,}"
            yield Moved(locked.name, text)


def _files(name: str, before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[Moved]:
    for path in sorted(before.keys() | now.keys()):
        if path not in now:
            yield Moved(name, f"gone     {path}")
        elif path not in before:
            yield Moved(name, f"new      {path}")
        elif before[path] != now[path]:
            yield Moved(name, f"changed  {path}")


def _no_length(path: str) -> SourceError:
    return SourceError(
        "source.length",
        f"nobody knows whether {path} is what it was",
        why="its server answers and tells no length",
        do="fetch it on another way and compare its SHA-256 with the request's",
    )
