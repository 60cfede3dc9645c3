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
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from airgap import fsio, limits
from airgap.errors import FormatError, SourceError
from airgap.events import Line, Sink
from airgap.format import canonical
from airgap.format.artifacts import LockedFile, LockedModel
from airgap.format.names import check_path
from airgap.format.request import ModelRequest
from airgap.store import Digests, Store, open_regular
from bundler.fetch.progress import Meter

# Bookkeeping of version control and of download tools at the top of a model folder: not the model,
# and OpenSSF Model Signing does not allow it there.
BOOKKEEPING = (".git", ".gitattributes", ".gitignore", ".gitmodules", ".cache")


@dataclass(frozen=True)
class Found:
    """A plain file to take in: its place in the model, where it lies, its size in bytes."""

    path: PurePosixPath
    file: Path
    size: int


def lock_model(request: ModelRequest, base: Path, store: Store, sink: Sink) -> LockedModel:
    """Take the model at `request.path` (relative to `base`) into the store and pin its files.

    Raises SourceError (`source.*`), IntegrityError when a file changes meanwhile, DiskError.
    """
    place = base / Path(request.path or "").expanduser()
    source = request.label or f"local/{_safe_label(place.name)}"
    found = find(place, request, source, sink)
    weights = weights_format(found, source)
    digests = take_in(found, store, sink)
    files = tuple(
        LockedFile(path=f.path, sha256=d.sha256, size=d.size, label=source)
        for f, d in zip(found, digests, strict=True)
    )
    return LockedModel(
        name=request.name,
        source=source,
        revision=content_revision(files),
        format=weights,
        publisher=request.publisher or "",
        licence=request.licence or "",
        files=files,
    )


def content_revision(files: Sequence[LockedFile]) -> str:
    """A name for exactly these files, for sources that have no commits of their own."""
    listing = canonical.encode([[str(f.path), f.sha256] for f in files])
    return f"sha256-{hashlib.sha256(listing).hexdigest()}"


def find(place: Path, request: ModelRequest, source: str, sink: Sink) -> list[Found]:
    """The files that the request means, sorted by path; SourceError when there are none."""
    # The link a person names is their choice; links inside the folder are not.
    top = Path(os.path.realpath(place))
    if top.is_file():
        found = [_found(top, PurePosixPath(top.name))]
    elif top.is_dir():
        found = list(_walk(top, request, sink))
    else:
        raise SourceError(
            "source.missing",
            f"the model '{request.name}' is not where the request says",
            why=f"there is no folder or file {place}",
            do="correct model.path; a relative path starts at the request's own folder",
        )
    if not found:
        raise SourceError(
            "source.empty",
            f"the model '{request.name}' ({source}) has no files",
            why="the folder is empty, or include and exclude leave nothing of it",
            do="check model.path, include and exclude",
        )
    return sorted(found, key=lambda f: str(f.path))


def _walk(top: Path, request: ModelRequest, sink: Sink) -> Iterator[Found]:
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
                _check_name(path)
                folders.append(path)
            elif _wanted(path, request):
                count += 1
                _check_count(count)
                yield _found(top / path, path)


def _entries(folder: Path) -> list[str]:
    with fsio.disk_errors(f"reading the folder {folder}"):
        return sorted(os.listdir(folder))


def _found(file: Path, path: PurePosixPath) -> Found:
    """`file` as a plain file; SourceError when it is a link or something special."""
    _check_name(path)
    with fsio.disk_errors(f"reading {file}"):
        st = os.lstat(file)
    if stat.S_ISLNK(st.st_mode):
        raise SourceError(
            "source.link",
            f"{_shown(path)} is a symbolic link",
            why="a link may point anywhere, and may point elsewhere tomorrow",
            do="copy the model with `cp -rL` and name the copy, or exclude the link",
        )
    if not stat.S_ISREG(st.st_mode):
        raise SourceError(
            "source.special",
            f"{_shown(path)} is not a plain file",
            why="it is a device, a pipe or a socket",
            do="remove it from the folder or exclude it",
        )
    return Found(path, file, st.st_size)


def _check_name(path: PurePosixPath) -> None:
    try:
        str(path).encode("utf-8")
        check_path(str(path), "")
    except (UnicodeEncodeError, FormatError) as e:
        why = e.why if isinstance(e, FormatError) else "the name is not UTF-8"
        raise SourceError(
            "source.name",
            f"the name {_shown(path)} cannot travel",
            why=why,
            do="rename the file in the source, or exclude it",
        ) from e


def _check_count(count: int) -> None:
    if count > limits.MAX_FILES:
        raise SourceError(
            "source.too-many",
            "the model folder is too large",
            why=f"it has more than {limits.MAX_FILES} files",
            do="narrow it with include and exclude",
        )


def _wanted(path: PurePosixPath, request: ModelRequest) -> bool:
    if request.include and not _matches(path, request.include):
        return False
    return not _matches(path, request.exclude)


def _matches(path: PurePosixPath, globs: Sequence[str]) -> bool:
    """As on the Hub: `*` also spans folders, and a trailing slash means all below."""
    patterns = (f"{g}*" if g.endswith("/") else g for g in globs)
    return any(fnmatchcase(str(path), p) for p in patterns)


def weights_format(found: Sequence[Found], source: str) -> str:
    """`gguf` or `safetensors`, from the first bytes and the names of the files.

    Raises SourceError `source.no-weights` or `source.two-formats`. Whether the weights are
    well-formed is for the gate to say.
    """
    kinds = {kind: f.path for f in found if (kind := _weights_kind(f)) is not None}
    if not kinds:
        raise SourceError(
            "source.no-weights",
            f"{source} holds no weights that can be served",
            why="there is no safetensors and no GGUF file among its files",
            do="name a folder with *.safetensors or one *.gguf file; pickled weights "
            "(*.bin, *.pt) must be converted first",
        )
    if len(kinds) > 1:
        raise SourceError(
            "source.two-formats",
            f"{source} holds weights in two formats",
            why=f"'{kinds['gguf']}' is GGUF and '{kinds['safetensors']}' is safetensors",
            do='choose one, for example include = ["*.gguf"], or exclude = ["*.gguf"]',
        )
    return next(iter(kinds))


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


def _shown(path: PurePosixPath) -> str:
    """A hostile name, harmless on a terminal."""
    return ascii(str(path))[:200]


def _safe_label(name: str) -> str:
    kept = "".join(c for c in name if c.isascii() and c.isprintable())
    return kept[:100] or "model"
