"""`[[file]]`: plain files by address and pinned digest -> one artifact for each name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from airgap.errors import UsageError
from airgap.events import Line, Sink
from airgap.format.artifacts import LockedFile, LockedPlainFiles
from airgap.format.request import FileRequest
from airgap.store import Store
from bundler.fetch.choice import check_name
from bundler.fetch.download import Item, Options, fetch

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def check_files(requests: Sequence[FileRequest]) -> None:
    """What can be said before anything is asked: https, a host, no password (UsageError)."""
    for request in requests:
        parts = urlsplit(request.url)
        if parts.username or parts.password:
            raise _bad(request, "it holds a user name or password", "put it into ~/.netrc")
        if parts.scheme == "http" and parts.hostname in _LOOPBACK:
            continue
        if parts.scheme != "https" or not parts.hostname:
            raise _bad(request, "it is no https:// address", "use https, or a [[model]] by path")
        place_of(request)


def lock_files(
    requests: Sequence[FileRequest],
    store: Store,
    sink: Sink,
    options: Options | None = None,
) -> list[LockedPlainFiles]:
    """Fetch all of them, which is how their sizes are learnt, and group them by name.

    Raises UsageError (`request.*`), SourceError (`source.*`), IntegrityError, DiskError.
    """
    check_files(requests)
    items = [Item(r.url, r.sha256, None, place_of(r).name) for r in requests]
    digests = fetch(items, store, sink, options=options)
    groups: dict[str, list[LockedFile]] = {}
    for request, found in zip(requests, digests, strict=True):
        file = LockedFile(
            path=place_of(request),
            sha256=found.sha256,
            size=found.size,
            label=urlsplit(request.url).hostname or "",
            url=_without_fragment(request.url),
        )
        groups.setdefault(request.name, []).append(file)
    out = []
    for name, files in groups.items():
        locked = LockedPlainFiles(name=name, files=tuple(sorted(files, key=lambda f: str(f.path))))
        size = sum(f.size for f in files)
        sink(Line("files", f"{name}: {len(files)} files, {size:,} bytes"))
        out.append(locked)
    return out


def place_of(request: FileRequest) -> PurePosixPath:
    """Its place in the artifact: as asked, else the last part of the address."""
    last = PurePosixPath(unquote(urlsplit(request.url).path)).name
    return check_name(request.path or last)


def _without_fragment(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(fragment=""))


def _bad(request: FileRequest, why: str, do: str) -> UsageError:
    return UsageError(
        "request.url", f"the file '{request.name}' cannot be fetched as asked", why=why, do=do
    )
