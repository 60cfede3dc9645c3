"""Requirements -> locked wheels: uv resolves, `packaging` reads its answer and picks wheels.

Wheels of an index keep their URL and are fetched later by hash. Wheels that lie in a folder here
have no address that another machine could use: they are taken into the store now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

import tomllib

from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Line, Sink
from airgap.format.artifacts import LockedFile, LockedWheels
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from airgap.store import Store
from bundler.fetch import download, resolver
from bundler.fetch.pip_config import sources
from bundler.workspace import Workspace

if TYPE_CHECKING:
    from packaging.pylock import Package, PackageWheel
    from packaging.tags import Tag

# Oldest glibc of a manylinux tag on each architecture (PEP 600, PEP 571, PEP 513).
_OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}
_LEGACY_TAGS = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}
LOCAL_LABEL = "local wheel"


@dataclass(frozen=True)
class Chosen:
    """The wheel that the target installs of one package. `size` in bytes when the index tells."""

    filename: str
    url: str
    sha256: str
    size: int | None


def lock_wheels(
    request: WheelsRequest, target: Target, base: Path, workspace: Workspace, sink: Sink
) -> LockedWheels:
    """Resolve and pin. `base` is the request's folder, where relative find-links start.

    Raises UsageError (`request.*`), SourceError (`source.*`), IntegrityError when a wheel is not
    what its index says.
    """
    check_requirements(request)
    links = [_place(base, link) for link in request.find_links]
    where = sources([_place(base, i) for i in request.index], links)
    sink(Line("resolve", f"{', '.join(request.requirements)} for {_spoken(target)}"))
    pylock = resolver.resolve(request, target, where, base, workspace.cache)
    chosen = choose(pylock, target)
    files = tuple(_pin(c, workspace.store, sink) for c in chosen)
    sink(Line("resolved", f"{len(files)} wheels, {sum(f.size for f in files):,} bytes"))
    return LockedWheels(name=request.name, requirements=request.requirements, files=files)


def check_requirements(request: WheelsRequest) -> None:
    """Names and versions only: no options, paths, URLs or repositories (UsageError)."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in (*request.requirements, *request.constraints, *request.overrides):
        try:
            parsed = Requirement(text)
        except InvalidRequirement as e:
            raise _bad_requirement(text, str(e).splitlines()[0]) from e
        if parsed.url is not None:
            raise _bad_requirement(text, "it names a URL instead of a version")


def _bad_requirement(text: str, why: str) -> UsageError:
    return UsageError(
        "request.requirement",
        f"{text!r} is not a requirement that can be locked",
        why=why,
        do="write name==version, with extras and markers where needed (PEP 508); a wheel of "
        "your own goes into a folder that find-links names",
    )


def choose(pylock: str, target: Target) -> list[Chosen]:
    """One wheel for each package of a PEP 751 lock, sorted by file name.

    Raises SourceError `source.no-wheel` naming every package that has none for the target, and
    `source.pylock` when the lock itself is not understood.
    """
    ranks = {tag: i for i, tag in enumerate(target_tags(target))}
    chosen: list[Chosen] = []
    culprits: list[str] = []
    for package in _packages(pylock):
        wheel = _best(package, ranks)
        if wheel is None:
            culprits.append(f"{package.name} {package.version or ''}".strip())
        else:
            chosen.append(_chosen(wheel))
    if culprits:
        raise _no_wheels(culprits, target)
    if not chosen:
        raise UsageError(
            "request.requirement",
            "the requirements ask for nothing",
            why="their markers exclude every package for this target",
            do="check the markers and [target]",
        )
    return sorted(chosen, key=lambda c: c.filename)


def _packages(pylock: str) -> Sequence[Package]:
    from packaging.pylock import Pylock, PylockValidationError

    try:
        return Pylock.from_dict(tomllib.loads(pylock)).packages
    except (tomllib.TOMLDecodeError, PylockValidationError) as e:
        raise _not_understood(str(e)) from e


def _best(package: Package, ranks: dict[Tag, int]) -> PackageWheel | None:
    """The wheel whose best tag the target likes most; None when none fits."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    best: tuple[int, str, PackageWheel] | None = None
    for wheel in package.wheels or ():
        try:
            tags = parse_wheel_filename(wheel.filename)[3]
        except InvalidWheelFilename as e:
            raise _not_understood(str(e)) from e
        rank = min((ranks[t] for t in tags if t in ranks), default=None)
        if rank is not None and (best is None or (rank, wheel.filename) < best[:2]):
            best = (rank, wheel.filename, wheel)
    return best[2] if best else None


def _chosen(wheel: PackageWheel) -> Chosen:
    sha256 = wheel.hashes.get("sha256")
    if wheel.url is None or sha256 is None:
        raise SourceError(
            "source.no-hash",
            f"{wheel.filename} cannot be pinned",
            why="its index gives no SHA-256 for it",
            do="use an index that does, or put the wheel into a folder that find-links names",
        )
    return Chosen(unquote(wheel.filename), wheel.url, sha256.lower(), wheel.size)


def target_tags(target: Target) -> list[Tag]:
    """Every wheel tag that the target installs, most liked first (PEP 425)."""
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = target.python.split(".")
    version = (int(major), int(minor))
    platforms = _platforms(target.platform)
    interpreter = f"cp{major}{minor}"
    tags = list(cpython_tags(version, platforms=platforms))
    tags += compatible_tags(version, interpreter=interpreter, platforms=platforms)
    return tags


def _platforms(platform: str) -> list[str]:
    """`x86_64-manylinux_2_34` -> its own tag and every older one (PEP 600), newest first."""
    machine, _, glibc = platform.partition("-manylinux_2_")
    out: list[str] = []
    for minor in range(int(glibc), _OLDEST_GLIBC[machine] - 1, -1):
        out.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY_TAGS:
            out.append(f"{_LEGACY_TAGS[minor]}_{machine}")
    return [*out, f"linux_{machine}"]


def _pin(chosen: Chosen, store: Store, sink: Sink) -> LockedFile:
    parts = urlsplit(chosen.url)
    path = PurePosixPath(chosen.filename)
    if parts.scheme == "file":
        size = _take_in(chosen, Path(unquote(parts.path)), store)
        return LockedFile(path=path, sha256=chosen.sha256, size=size, label=LOCAL_LABEL)
    host = parts.hostname or "an index"
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
    size_known = chosen.size
    if size_known is None:
        item = download.Item(chosen.url, chosen.sha256, None, chosen.filename)
        size_known = download.fetch([item], store, sink)[0].size
    return LockedFile(path=path, sha256=chosen.sha256, size=size_known, label=host, url=url)


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


def _place(base: Path, text: str) -> str:
    """A URL as it is; a path made absolute from the request's folder."""
    if "://" in text:
        return text
    place = base / Path(text).expanduser()
    if not place.exists():
        raise SourceError(
            "source.missing",
            "a folder of wheels is not where the request says",
            why=f"there is no {place}",
            do="correct find-links; a relative path starts at the request's own folder",
        )
    return str(place.resolve())


def _no_wheels(culprits: Sequence[str], target: Target) -> SourceError:
    return SourceError(
        "source.no-wheel",
        f"{len(culprits)} packages have no wheel for {_spoken(target)}",
        why=f"only a source, or wheels for other targets: {', '.join(culprits[:20])}",
        do="choose other versions or a newer platform, or put wheels of them into a folder that "
        "find-links names; nothing is built from source here",
    )


def _not_understood(why: str) -> SourceError:
    return SourceError(
        "source.pylock",
        "the resolver's lock is not understood",
        why=why[:500],
        do="report it, with the versions of sealift and uv",
    )


def _spoken(target: Target) -> str:
    return f"Python {target.python} on {target.platform}"
