"""Requirements -> locked wheels: uv resolves, `packaging` reads its answer and picks wheels.

Wheels of an index keep their URL and are fetched later by hash. Wheels that lie in a folder here
have no address that another machine could use: they are taken into the store now. A request may
bring a PEP 751 lock of its own instead of requirements; then nothing is resolved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit, urlunsplit

from airgap import bounded, limits
from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Line, Sink
from airgap.format.artifacts import LockedFile, LockedWheels
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from airgap.store import Store
from bundler.fetch import download, pylock, resolver
from bundler.fetch.download import Options
from bundler.fetch.pip_config import sources
from bundler.fetch.pylock import Chosen
from bundler.fetch.targets import spoken
from bundler.workspace import Workspace

LOCAL_LABEL = "local wheel"


def lock_wheels(
    request: WheelsRequest,
    target: Target,
    base: Path,
    workspace: Workspace,
    sink: Sink,
    options: Options | None = None,
) -> LockedWheels:
    """Resolve and pin. `base` is the request's folder, where relative paths start.

    Raises UsageError (`request.*`), SourceError (`source.*`), IntegrityError when a wheel is not
    what its index says.
    """
    asked, chosen = choose_wheels(request, target, base, workspace, sink)
    files = tuple(_pin(c, workspace.store, sink, options) for c in chosen)
    sink(Line("resolved", f"{len(files)} wheels, {sum(f.size for f in files):,} bytes"))
    return LockedWheels(name=request.name, requirements=asked, files=files)


def choose_wheels(
    request: WheelsRequest, target: Target, base: Path, workspace: Workspace, sink: Sink
) -> tuple[tuple[str, ...], list[Chosen]]:
    """What was asked for, and the wheels that it means today. Nothing comes into the store.

    Raises UsageError (`request.*`), SourceError (`source.*`).
    """
    if request.pylock is not None:
        return _choose_given(request, target, base, sink)
    check_requirements(request)
    links = [_place(base, link) for link in request.find_links]
    where = sources([_place(base, i) for i in request.index], links)
    sink(Line("resolve", f"{', '.join(request.requirements)} for {spoken(target)}"))
    answer = resolver.resolve(request, target, where, base, workspace.cache)
    return request.requirements, pylock.choose(answer, target, base)


def _choose_given(
    request: WheelsRequest, target: Target, base: Path, sink: Sink
) -> tuple[tuple[str, ...], list[Chosen]]:
    """Of a lock that the request names: its choices are kept, only the target is applied."""
    path = Path(_place(base, request.pylock or "", "pylock"))
    data = bounded.read(path, limits.MAX_DOCUMENT_BYTES)
    sink(Line("pylock", f"{path.name} for {spoken(target)}"))
    chosen = pylock.choose(data.decode("utf-8", "replace"), target, path.parent)
    _check_age(request, chosen)
    asked = (f"{path.name} sha256-{hashlib.sha256(data).hexdigest()}",)
    return asked, chosen


def _check_age(request: WheelsRequest, chosen: Sequence[Chosen]) -> None:
    """`newest` over a lock that somebody else resolved: each time must be known and old enough."""
    if request.newest is None:
        return
    end = resolver.end_of(request.newest)
    young = [c.filename for c in chosen if c.uploaded is None or c.uploaded >= end]
    if young:
        raise SourceError(
            "source.too-new",
            f"{len(young)} wheels of the lock are newer than {request.newest}, or do not say",
            why=", ".join(young[:20]),
            do="lock again with `--exclude-newer`, or change wheels.newest",
        )


def check_requirements(request: WheelsRequest) -> None:
    """Names and versions only: no options, paths, URLs or repositories (UsageError)."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    named = set()
    for text in (*request.requirements, *request.constraints, *request.overrides):
        try:
            parsed = Requirement(text)
        except InvalidRequirement as e:
            raise _bad_requirement(text, str(e).splitlines()[0]) from e
        if parsed.url is not None:
            raise _bad_requirement(text, "it names a URL instead of a version")
        if text in request.requirements:
            named.add(canonicalize_name(parsed.name))
    for package in (p for pin in request.pinned for p in pin.packages):
        if canonicalize_name(package) not in named:
            raise _bad_requirement(package, "it is pinned to an index and not asked for")


def _bad_requirement(text: str, why: str) -> UsageError:
    return UsageError(
        "request.requirement",
        f"{text!r} is not a requirement that can be locked",
        why=why,
        do="write name==version in requirements, with extras and markers where needed (PEP 508); "
        "a wheel of your own goes into a folder that find-links names",
    )


def _pin(chosen: Chosen, store: Store, sink: Sink, options: Options | None) -> LockedFile:
    parts = urlsplit(chosen.url or "")
    path = PurePosixPath(chosen.filename)
    if chosen.file is not None or parts.scheme == "file":
        file = chosen.file or Path(unquote(parts.path))
        size = _take_in(chosen, file, store)
        return LockedFile(
            path=path,
            sha256=chosen.sha256,
            size=size,
            label=LOCAL_LABEL,
            uploaded=chosen.uploaded,
        )
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    size_known = chosen.size
    if size_known is None:
        item = download.Item(chosen.url or "", chosen.sha256, None, chosen.filename)
        size_known = download.fetch([item], store, sink, options=options)[0].size
    return LockedFile(
        path=path,
        sha256=chosen.sha256,
        size=size_known,
        label=parts.hostname or "an index",
        url=url,
        uploaded=chosen.uploaded,
    )


def _take_in(chosen: Chosen, file: Path, store: Store) -> int:
    """Size in bytes of a wheel that lies here, after its bytes came into the store."""
    try:
        return store.add_file(file, expect_sha256=chosen.sha256).size
    except IntegrityError as e:
        raise IntegrityError(
            "source.digest",
            f"{chosen.filename} is not what its folder or index says",
            why=e.why,
            do="take that wheel from its source again, then lock again",
        ) from e


def _place(base: Path, text: str, key: str = "find-links") -> str:
    """A URL as it is; a path made absolute from the request's folder."""
    if "://" in text:
        return text
    place = base / Path(text).expanduser()
    if not place.exists():
        raise SourceError(
            "source.missing",
            "wheels, or their lock, are not where the request says",
            why=f"there is no {place}",
            do=f"correct {key}; a relative path starts at the request's own folder",
        )
    return str(place.resolve())
