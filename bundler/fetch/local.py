"""A model that lies on this machine -> locked files whose bytes are in the store.

The folder is walked with lstat and only plain files are taken; each is read once, hashed on its
way into the store. Nothing that is written here names a path of this machine.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from airgap import fsio, limits
from airgap.errors import SourceError
from airgap.events import Line, Sink
from airgap.format import canonical
from airgap.format.artifacts import LockedFile
from airgap.store import Digests, Store, open_regular
from bundler.fetch.choice import BOOKKEEPING, WEIGHTS, check_name, one_format, shown, wanted
from bundler.fetch.progress import Meter
from bundler.fetch.tree import Tree, TreeRequest


@dataclass(frozen=True)
class Found:
    """A plain file to take in: its place in the model, where it lies, its size in bytes."""

    path: PurePosixPath
    file: Path
    size: int


def lock_tree(
    request: TreeRequest, base: Path, store: Store, sink: Sink, formats: Sequence[str] = WEIGHTS
) -> Tree:
    """Take the files at `request.path` (relative to `base`) into the store and pin them.

    Raises SourceError (`source.*`), IntegrityError when a file changes meanwhile, DiskError.
    """
    source, found = find(request, base, sink)
    weights = one_format({f.path: _weights_kind(f) for f in found}, source, formats)
    digests = take_in(found, store, sink)
    files = tuple(
        LockedFile(path=f.path, sha256=d.sha256, size=d.size, label=source)
        for f, d in zip(found, digests, strict=True)
    )
    return Tree(source=source, revision=content_revision(files), format=weights, files=files)


def content_revision(files: Sequence[LockedFile]) -> str:
    """A name for exactly these files, for sources that have no commits of their own."""
    listing = canonical.encode([[str(f.path), f.sha256] for f in files])
    return f"sha256-{hashlib.sha256(listing).hexdigest()}"


def find(request: TreeRequest, base: Path, sink: Sink) -> tuple[str, list[Found]]:
    """How the source is called, and the files that the request means, sorted by path; SourceError
    when there are none."""
    place = base / Path(request.path or "").expanduser()
    source = request.label or f"local/{_safe_label(place.name)}"
    # The link a person names is their choice; links inside the folder are not.
    top = Path(os.path.realpath(place))
    if top.is_file():
        found = [_found(top, PurePosixPath(top.name))]
    elif top.is_dir():
        found = list(_walk(top, request, sink))
    else:
        raise SourceError(
            "source.missing",
            f"'{request.name}' is not where the request says",
            why=f"there is no folder or file {place}",
            do="correct 'path'; a relative path starts at the request's own folder",
        )
    if not found:
        raise SourceError(
            "source.empty",
            f"'{request.name}' ({source}) has no files",
            why="the folder is empty, or include and exclude leave nothing of it",
            do="check path, include and exclude",
        )
    return source, sorted(found, key=lambda f: str(f.path))


def _walk(top: Path, request: TreeRequest, sink: Sink) -> Iterator[Found]:
    folders = [PurePosixPath(".")]
    count = 0
    while folders:
        folder = folders.pop()
        for name in _entries(top / folder):
            path = folder / name
            if str(path) in BOOKKEEPING:
                sink(Line("leave out", f"{path} (bookkeeping, not part of the model)"))
                continue
            kind = os.lstat(top / path).st_mode
            if stat.S_ISDIR(kind):
                check_name(str(path))
                folders.append(path)
            elif wanted(path, request):
                count += 1
                _check_count(count)
                yield _found(top / path, path)


def _entries(folder: Path) -> list[str]:
    with fsio.disk_errors(f"reading the folder {folder}"):
        return sorted(os.listdir(folder))


def _found(file: Path, path: PurePosixPath) -> Found:
    """`file` as a plain file; SourceError when it is a link or something special."""
    check_name(str(path))
    with fsio.disk_errors(f"reading {file}"):
        st = os.lstat(file)
    if stat.S_ISLNK(st.st_mode):
        raise SourceError(
            "source.link",
            f"{shown(path)} is a symbolic link",
            why="a link may point anywhere, and may point elsewhere tomorrow",
            do="copy the model with `cp -rL` and name the copy, or exclude the link",
        )
    if not stat.S_ISREG(st.st_mode):
        raise SourceError(
            "source.special",
            f"{shown(path)} is not a plain file",
            why="it is a device, a pipe or a socket",
            do="remove it from the folder or exclude it",
        )
    return Found(path, file, st.st_size)


def _check_count(count: int) -> None:
    if count > limits.MAX_FILES:
        raise SourceError(
            "source.too-many",
            "the model folder is too large",
            why=f"it has more than {limits.MAX_FILES} files",
            do="narrow it with include and exclude",
        )


def _weights_kind(found: Found) -> str | None:
    with open_regular(found.file) as fd, fsio.disk_errors(f"reading {found.file}"):
        head = os.read(fd, 9)
    suffix = found.path.suffix.lower()
    if head.startswith(b"GGUF") or suffix == ".gguf":
        return "gguf"
    # safetensors: 8 bytes of header length, then the header, a JSON object.
    length = int.from_bytes(head[:8], "little")
    plausible = len(head) == 9 and head[8:] == b"{" and length <= found.size - 8
    return "safetensors" if plausible or suffix == ".safetensors" else None


def take_in(found: Sequence[Found], store: Store, sink: Sink) -> list[Digests]:
    """Every file into the store, one read each, on as many threads as there are cores."""
    meter = Meter("take in", sum(f.size for f in found), len(found), sink)

    def one(f: Found) -> Digests:
        digests = store.add_file(f.file, expect_size=f.size, on_bytes=meter.add, durable_name=False)
        meter.file_done()
        return digests

    workers = min(os.cpu_count() or 1, limits.MAX_COPY_WORKERS)
    pool = ThreadPoolExecutor(workers)
    try:
        digests = list(pool.map(one, found))
    finally:
        pool.shutdown(cancel_futures=True)
    store.sync_names()
    meter.end()
    return digests


def _safe_label(name: str) -> str:
    kept = "".join(c for c in name if c.isascii() and c.isprintable())
    return kept[:100] or "model"
