"""PEP 751 lock files: read, and one wheel of each package chosen for a target; and written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import tomllib

from airgap.errors import SourceError, UsageError
from airgap.format.artifact_rules import wheel_name_version
from airgap.format.artifacts import LockedWheels
from airgap.format.types import Target
from bundler.fetch.targets import environment, spoken, target_tags

if TYPE_CHECKING:
    from packaging.pylock import Package, PackageWheel, Pylock
    from packaging.tags import Tag

# The folder beside an exported lock that its relative paths lead into.
WHEELS_FOLDER = "wheels"


@dataclass(frozen=True)
class Chosen:
    """The wheel that the target installs of one package: at a `url`, or in a `file` that a lock
    names by path. `size` in bytes and `uploaded` in UTC seconds, when the index tells."""

    filename: str
    sha256: str
    url: str | None = None
    file: Path | None = None
    size: int | None = None
    uploaded: int | None = None


def choose(pylock: str, target: Target, base: Path) -> list[Chosen]:
    """One wheel for each package of a PEP 751 lock, sorted by file name. `base`: the folder that
    paths in it are relative to.

    Raises SourceError `source.no-wheel` naming every package that has none for the target, and
    `source.pylock` when the lock is not understood or not for that Python.
    """
    ranks = {tag: i for i, tag in enumerate(target_tags(target))}
    chosen: list[Chosen] = []
    culprits: list[str] = []
    for package in _packages(pylock, target):
        wheel = _best(package, ranks)
        if wheel is None:
            culprits.append(f"{package.name} {package.version or ''}".strip())
        else:
            chosen.append(_chosen(wheel, base))
    if culprits:
        raise no_wheels(culprits, target)
    if not chosen:
        raise UsageError(
            "request.requirement",
            "the requirements ask for nothing",
            why="their markers exclude every package for this target",
            do="check the markers and [target]",
        )
    return sorted(chosen, key=lambda c: c.filename)


def _packages(text: str, target: Target) -> Iterator[Package]:
    """Those whose marker holds, of the default groups and without extras."""
    lock = _parse(text)
    values = environment(target)
    wanted = lock.requires_python
    if wanted is not None and not _runs(wanted, target.python):
        raise _not_understood(f"it is for Python {wanted}, the target is {target.python}")
    extra = {"extras": frozenset[str](), "dependency_groups": frozenset(lock.default_groups or ())}
    for package in lock.packages:
        if package.marker is None or package.marker.evaluate({**values, **extra}, "lock_file"):
            yield package


def _parse(text: str) -> Pylock:
    from packaging.pylock import Pylock, PylockValidationError

    try:
        return Pylock.from_dict(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError, PylockValidationError) as e:
        raise _not_understood(str(e)) from e


def _runs(wanted: object, python: str) -> bool:
    """Whether some patch level of `python` is among the wanted."""
    from packaging.specifiers import SpecifierSet

    found = SpecifierSet(str(wanted))
    return any(found.contains(f"{python}.{patch}") for patch in (0, 5, 10, 20, 99))


def _best(package: Package, ranks: dict[Tag, int]) -> PackageWheel | None:
    """The wheel whose best tag the target likes most; None when none fits."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    best: tuple[int, str, PackageWheel] | None = None
    for wheel in package.wheels or ():
        try:
            tags = parse_wheel_filename(unquote(wheel.filename))[3]
        except InvalidWheelFilename as e:
            raise _not_understood(str(e)) from e
        rank = min((ranks[t] for t in tags if t in ranks), default=None)
        if rank is not None and (best is None or (rank, wheel.filename) < best[:2]):
            best = (rank, wheel.filename, wheel)
    return best[2] if best else None


def _chosen(wheel: PackageWheel, base: Path) -> Chosen:
    sha256 = wheel.hashes.get("sha256")
    filename = unquote(wheel.filename)
    if sha256 is None or (wheel.url is None and wheel.path is None):
        raise SourceError(
            "source.no-hash",
            f"{filename} cannot be pinned",
            why="its index or lock gives no SHA-256, or no place for it",
            do="use an index that does, or put the wheel into a folder that find-links names",
        )
    return Chosen(
        filename=filename,
        sha256=sha256.lower(),
        url=wheel.url,
        file=None if wheel.url is not None else base / str(wheel.path),
        size=wheel.size,
        uploaded=None if wheel.upload_time is None else _seconds(wheel.upload_time),
    )


def _seconds(time: datetime) -> int:
    """PEP 751 has upload times in UTC, written with or without saying so."""
    return int((time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp())


def write(wheels: LockedWheels, target: Target) -> str:
    """The lock of these wheels as PEP 751, with paths into WHEELS_FOLDER: whatever installs from
    such a file needs no network and no index."""
    out = [
        'lock-version = "1.0"\ncreated-by = "sealift"',
        f'requires-python = "~={target.python}.0"',
    ]
    for f in wheels.files:
        name, version = wheel_name_version(f.path.name)
        size = f"size = {f.size}, hashes = {{ sha256 = {json.dumps(f.sha256)} }}"
        time = f"upload-time = {_stamp(f.uploaded)}, " if f.uploaded is not None else ""
        path = json.dumps(f"{WHEELS_FOLDER}/{f.path.name}")
        out.append(
            f"\n[[packages]]\nname = {json.dumps(_normalized(name))}\n"
            f"version = {json.dumps(version)}\n"
            f"wheels = [{{ path = {path}, {time}{size} }}]"
        )
    return "\n".join(out) + "\n"


def _normalized(name: str) -> str:
    from packaging.utils import canonicalize_name

    return str(canonicalize_name(name))


def _stamp(seconds: int) -> str:
    time = datetime.fromtimestamp(seconds, timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def no_wheels(culprits: Sequence[str], target: Target) -> SourceError:
    """Every package that would have to be built from source, and the ways out."""
    one = len(culprits) == 1
    what = f"{culprits[0]} has" if one else f"{len(culprits)} packages have"
    return SourceError(
        "source.no-wheel",
        f"{what} no wheel for {spoken(target)}",
        why=f"only a source, or wheels for other targets: {', '.join(culprits[:50])}",
        do="nothing is built from source here: choose other versions or a newer platform; build "
        "wheels where you trust it (`pip wheel --no-deps NAME==VERSION`) and name their folder in "
        "find-links; or leave out what your engine never imports, by overrides "
        "(\"NAME; python_version < '0'\")",
    )


def _not_understood(why: str) -> SourceError:
    return SourceError(
        "source.pylock",
        "the lock of the wheels is not understood",
        why=why[:500],
        do="a lock of your own: make it again with the tool that wrote it; else report it, with "
        "the versions of sealift and uv",
    )
