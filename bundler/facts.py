"""`host.json`, which came out of a place that nobody here controls -> the target of a request."""

from __future__ import annotations

from pathlib import Path

import tomllib

from airgap import bounded, limits
from airgap.errors import FormatError, IntegrityError, SourceError, UsageError
from airgap.format.facts import Facts
from airgap.format.request import TargetRequest
from airgap.format.types import Target

# glibc versions, the part after `2.`, whose manylinux platform the resolver knows.
KNOWN_GLIBC = (17, 28, *range(31, 41))
# The newest Python that engines of 2026 have wheels for.
_NEWEST_PYTHON = (3, 13)


def read(path: Path) -> Facts:
    """The facts in `path`, strictly. Raises SourceError `facts.missing`, IntegrityError
    `facts.invalid` (exit 3) for anything that `airgap facts` would not have written."""
    if not path.exists():
        raise SourceError(
            "facts.missing",
            "the facts of the host are not where the request says",
            why=f"there is no {path}",
            do="run `airgap facts -o host.json` on the isolated host and bring the file",
        )
    data = bounded.read(path, limits.MAX_FACTS_BYTES)
    try:
        return Facts.from_bytes(data)
    except FormatError as e:
        raise IntegrityError(
            "facts.invalid",
            f"{path.name} is not what `airgap facts` writes",
            why=f"{e.where}: {e.why}" if e.where else e.why,
            do="measure the host again; if the file is the one that was carried out, do not trust "
            "the way that it took",
        ) from e


def of_request(path: Path) -> Facts | None:
    """The facts that the request in `path` names itself; None when its target is written out."""
    written = tomllib.loads(path.read_text("utf-8")).get("target")
    named = written.get("facts") if isinstance(written, dict) else None
    return read(path.parent / Path(named).expanduser()) if isinstance(named, str) else None


def target(found: Facts, asked: TargetRequest) -> Target:
    """What a request for this host is locked for; what `asked` names decides where it fits.

    Raises UsageError `facts.python`, `facts.platform`, `facts.accelerator`.
    """
    return Target(
        python=_python(found, asked.python),
        platform=_platform(found, asked.platform),
        accelerator=_accelerator(found, asked.accelerator),
    )


def _python(found: Facts, asked: str | None) -> str:
    """The newest that engines have wheels for, unless another is asked for."""
    have = [p.version for p in found.pythons]
    if asked is not None:
        if asked not in have:
            raise _unfit("python", f"Python {asked}", f"the host has {', '.join(have) or 'none'}")
        return asked
    fitting = [v for v in have if _version(v) <= _NEWEST_PYTHON]
    if not fitting:
        raise _unfit("python", "a Python up to 3.13", f"the host has {', '.join(have) or 'none'}")
    return max(fitting, key=_version)


def _platform(found: Facts, asked: str | None) -> str:
    """The newest that the resolver knows and the host's glibc runs."""
    if found.glibc is None:
        raise _unfit("platform", "wheels for Linux with glibc", "the host has another C library")
    major, minor = _version(found.glibc)
    newest = max((g for g in KNOWN_GLIBC if (2, g) <= (major, minor)), default=None)
    if newest is None:
        raise _unfit("platform", "glibc 2.17 or newer", f"the host has {found.glibc}")
    if asked is None:
        return f"{found.machine}-manylinux_2_{newest}"
    machine, _, glibc = asked.partition("-manylinux_2_")
    if machine != found.machine or (2, int(glibc)) > (major, minor):
        has = f"the host is {found.machine} with glibc {found.glibc}"
        raise _unfit("platform", asked, has)
    return asked


def _accelerator(found: Facts, asked: str | None) -> str:
    cuda = found.nvidia.cuda if found.nvidia and found.nvidia.gpus else None
    best = f"cuda-{cuda.split('.')[0]}" if cuda else "cpu"
    if asked is None:
        return best
    if asked.startswith("cuda-"):
        has = f"its driver runs CUDA {cuda}" if cuda else "it has no NVIDIA GPU with a driver"
        if cuda is None or int(asked.removeprefix("cuda-")) > _version(cuda)[0]:
            raise _unfit("accelerator", asked, has)
    return asked


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _unfit(key: str, wanted: str, have: str) -> UsageError:
    return UsageError(
        f"facts.{key}",
        f"the host cannot run {wanted}",
        why=f"{have} (host.json)",
        do=f"change target.{key} in the request or leave it out, or prepare the host and measure "
        "it again",
    )
