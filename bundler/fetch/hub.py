"""A repository of the Hugging Face Hub -> a pinned tree of files.

The revision is pinned to its commit, and every file to the identity that the Hub's tree gives: the
SHA-256 of an LFS file, the git blob id of a small one. Small files are fetched here, because a lock
needs their SHA-256 too; large ones later, by digest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from airgap import fsio
from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Line, Sink
from airgap.format.artifacts import LockedFile
from airgap.store import Store
from bundler.fetch.choice import WEIGHTS, check_name, choose, one_format, tell
from bundler.fetch.download import Item, Options, fetch
from bundler.fetch.hub_answers import HubFile, Revision
from bundler.fetch.hub_api import Hub
from bundler.fetch.tree import Tree, TreeRequest

# A pointer is three short lines (git-lfs specification, version 1).
_POINTER = re.compile(rb"version https://(git-lfs\.github\.com|hawser\.github\.com)/spec/v1\n")
_POINTER_BYTES = 1024


@dataclass(frozen=True)
class Listing:
    """The files of one commit that the request means, by path. Nothing of them was fetched."""

    revision: Revision
    format: str
    files: dict[PurePosixPath, HubFile]


def lock_tree(
    request: TreeRequest,
    hub: Hub,
    store: Store,
    sink: Sink,
    formats: Sequence[str] = WEIGHTS,
    options: Options | None = None,
) -> Tree:
    """Resolve, list and pin; the small files come into the store.

    Raises UsageError (`request.*`), SourceError (`source.*`), IntegrityError, DiskError.
    """
    found = listing(request, hub, sink, formats)
    repo, commit = found.revision.repo, found.revision.commit
    sha256 = _fetch_small(found, hub, store, sink, options)
    files = tuple(
        LockedFile(
            path=path,
            sha256=sha256[path],
            size=f.size,
            label=hub.source(repo),
            url=hub.url(repo, commit, f.path),
            git_blob=f.git_blob,
        )
        for path, f in found.files.items()
    )
    return Tree(
        source=hub.source(repo),
        revision=commit,
        format=found.format,
        files=files,
        publisher=repo.partition("/")[0],
        licence=found.revision.licence,
    )


def listing(
    request: TreeRequest, hub: Hub, sink: Sink, formats: Sequence[str] = WEIGHTS
) -> Listing:
    """What the request means now, from the Hub's tree alone."""
    repo = request.repo or ""
    if request.label is not None:
        raise UsageError(
            "request.invalid",
            f"{repo} has a label",
            why="a repository is called by its own name in the lock",
            do="take 'label' out, or name a local source by 'path'",
        )
    revision = hub.resolve(repo, request.revision)
    sink(Line("resolved", f"{hub.source(repo)} {request.revision} is {revision.commit}"))
    tree = {PurePosixPath(f.path): f for f in hub.tree(repo, revision.commit)}
    taken, left = choose({path: f.size for path, f in tree.items()}, request)
    tell(left, sink)
    for path in taken:
        check_name(tree[path].path)
    if not taken:
        raise SourceError(
            "source.empty",
            f"'{request.name}' ({hub.source(repo)}) has no files",
            why="the repository is empty, or include and exclude leave nothing of it",
            do="check repo, revision, include and exclude",
        )
    kinds = {path: _kind(path) for path in taken}
    if not any(kinds.values()) and any(_kind(f.path) for f in left):
        raise _only_others([f.path for f in left if _kind(f.path)], hub.source(repo))
    weights = one_format(kinds, hub.source(repo), formats)
    return Listing(revision, weights, {path: tree[path] for path in taken})


def _kind(path: PurePosixPath) -> str | None:
    """The format of weights, by name: the bytes are not here yet, and the gate looks at them."""
    suffix = path.suffix.lower().lstrip(".")
    return suffix if suffix in WEIGHTS else None


def _fetch_small(
    found: Listing, hub: Hub, store: Store, sink: Sink, options: Options | None
) -> dict[PurePosixPath, str]:
    """SHA-256 of every file; those that the tree gives none for are fetched to learn it."""
    repo, commit = found.revision.repo, found.revision.commit
    small = {path: f for path, f in found.files.items() if f.sha256 is None}
    items = [
        Item(
            hub.url(repo, commit, f.path),
            None,
            f.size,
            path.name,
            git_blob=f.git_blob,
            access=hub.access(repo),
        )
        for path, f in small.items()
    ]
    digests = fetch(items, store, sink, options=options)
    out = {path: f.sha256 for path, f in found.files.items() if f.sha256 is not None}
    for path, d in zip(small, digests, strict=True):
        _check_no_pointer(path, d.sha256, d.size, store)
        out[path] = d.sha256
    return out


def _check_no_pointer(path: PurePosixPath, sha256: str, size: int, store: Store) -> None:
    if size > _POINTER_BYTES:
        return
    blob = store.blob_path(sha256)
    with fsio.disk_errors(f"reading {blob}"):
        head = blob.read_bytes()
    if _POINTER.match(head):
        raise IntegrityError(
            "source.lfs-pointer",
            f"{path} is a pointer to a file and not the file",
            why="git-lfs left it in place of the bytes; the repository was uploaded wrongly",
            do="choose another revision, or tell the repository's owner",
        )


def _only_others(paths: Sequence[PurePosixPath], source: str) -> SourceError:
    names = sorted(str(p) for p in paths)
    return SourceError(
        "source.no-weights",
        f"{source} holds no safetensors",
        why=f"its weights are {', '.join(names[:20])}",
        do=f'name the one you want, for example include = ["{names[0]}"]',
    )
