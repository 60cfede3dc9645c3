"""uv resolves requirements for a target that is not this machine; its answer is PEP 751 TOML."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from airgap import fsio
from airgap.errors import SealiftError, SourceError, UsageError
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.fetch.pip_config import Sources
from bundler.fetch.pylock import no_wheels

# 200 packages over a slow link with retries take a few minutes; more is a hang.
TIMEOUT_SECONDS = 1800
# Packages without a wheel that are looked for, one resolution each, before the list is given.
MAX_CULPRITS = 20

_NETWORK = re.compile(
    r"Failed to fetch|error sending request|Could not connect|Request failed after|"
    r"HTTP status (server|client) error|timed? ?out|Network connectivity is disabled|tls handshake",
    re.IGNORECASE,
)
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_NO_WHEEL = re.compile(r"\b([\w.-]+(?:==\S+)?) has no (?:usable )?wheels")


def resolve(
    request: WheelsRequest, target: Target, sources: Sources, base: Path, cache: Path
) -> str:
    """pylock.toml for the target. `base`: where uv runs, for relative find-links of pip's.

    Raises UsageError `request.requirement` or `request.platform`, SourceError
    `source.unreachable`, `source.no-wheel` (with every culprit) or `source.unsatisfiable`.
    """
    fsio.make_dirs(cache)
    culprits: list[str] = []
    while True:
        done = _resolve_once(request, target, sources, base, cache)
        lacking = None if done.returncode == 0 else _without_wheel(done.stderr)
        if lacking is not None and lacking not in culprits and len(culprits) < MAX_CULPRITS:
            # uv stops at the first; without it, it names the next. Nothing is ever built.
            culprits.append(lacking)
            request = _leaving_out(request, lacking)
            continue
        if culprits:
            raise no_wheels(culprits, target)
        if done.returncode != 0:
            raise _failure(done.stderr, target)
        return done.stdout


def _resolve_once(
    request: WheelsRequest, target: Target, sources: Sources, base: Path, cache: Path
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(dir=cache, prefix="resolve-") as scratch:
        argv = _arguments(request, target, sources, Path(scratch))
        argv += ["--cache-dir", str(cache / "uv")]
        return _run(argv, "\n".join(request.requirements) + "\n", base)


def _without_wheel(stderr: str) -> str | None:
    """The package that uv says has no wheel; None when that is not what it says."""
    text = _CREDENTIALS.sub("", stderr)
    if _NETWORK.search(text):
        return None
    found = _NO_WHEEL.search(text)
    return found.group(1) if found else None


def _leaving_out(request: WheelsRequest, package: str) -> WheelsRequest:
    """The same request without that package, so that the next culprit shows."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    name = canonicalize_name(package.partition("==")[0])
    kept = [o for o in request.overrides if canonicalize_name(Requirement(o).name) != name]
    return replace(request, overrides=(*kept, f"{name}; python_version < '0'"))


def _run(argv: Sequence[str], text: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, UV_PYTHON_DOWNLOADS="never", UV_NO_PROGRESS="1")
    try:
        return subprocess.run(
            argv,
            input=text,
            cwd=cwd,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise _unreachable(f"uv had not ended after {TIMEOUT_SECONDS} seconds") from e
    except OSError as e:
        raise SourceError(
            "source.uv",
            "uv could not be started",
            why=str(e),
            do="install the connected side again: pip install 'sealift[connected]'",
        ) from e


def _arguments(
    request: WheelsRequest, target: Target, sources: Sources, scratch: Path
) -> list[str]:
    argv = [
        find_uv(),
        "pip",
        "compile",
        _input(request, target, scratch),
        "--quiet",
        "--no-header",
        "--color",
        "never",
    ]
    argv += ["--format", "pylock.toml", "--only-binary", ":all:"]
    argv += ["--python", sys.executable, "--python-version", target.python]
    argv += ["--python-platform", target.platform, "--index-strategy", "first-index"]
    argv += _file_option("--constraints", request.constraints, scratch)
    argv += _file_option("--overrides", request.overrides, scratch)
    if request.newest is not None:
        argv += ["--exclude-newer", _after(request.newest)]
    return argv + sources.arguments()


def _input(request: WheelsRequest, target: Target, scratch: Path) -> str:
    """Standard input; or, where packages are pinned to an index, a project that says so: uv then
    asks that index for these packages only, and no other index for them."""
    if not request.pinned:
        return "-"
    lines = [
        '[project]\nname = "request"\nversion = "0"',
        f'requires-python = ">={target.python}"',
        f"dependencies = {json.dumps(list(request.requirements))}",
    ]
    for i, pin in enumerate(request.pinned):
        lines.append(f'[[tool.uv.index]]\nname = "pinned-{i}"\nurl = {json.dumps(pin.index)}')
        lines.append("explicit = true")
    lines.append("[tool.uv.sources]")
    for i, pin in enumerate(request.pinned):
        lines += [f'{json.dumps(name)} = {{ index = "pinned-{i}" }}' for name in pin.packages]
    path = scratch / "pyproject.toml"
    fsio.write(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return str(path)


def _file_option(option: str, lines: Sequence[str], scratch: Path) -> list[str]:
    if not lines:
        return []
    path = scratch / f"{option.strip('-')}.txt"
    fsio.write(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return [option, str(path)]


def end_of(day: str) -> int:
    """The end of that day, UTC seconds. Raises UsageError `request.newest`."""
    try:
        start = datetime.datetime.fromisoformat(day).replace(tzinfo=datetime.timezone.utc)
        return int((start + datetime.timedelta(days=1)).timestamp())
    except (ValueError, OverflowError) as e:
        raise UsageError(
            "request.newest", f"'{day}' is not a day", why=str(e), do="write it as 2026-11-01"
        ) from e


def _after(day: str) -> str:
    """The end of that day in UTC; uv would take a bare date in the local time zone."""
    end = datetime.datetime.fromtimestamp(end_of(day), datetime.timezone.utc)
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def find_uv() -> str:
    """The uv that was installed with the connected side, else the one on PATH."""
    try:
        import uv
    except ImportError:
        return "uv"
    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError:
        return "uv"


def _failure(stderr: str, target: Target) -> SealiftError:
    text = _CREDENTIALS.sub("", stderr).strip()
    why = _sentence(text)
    if "--python-platform" in text and "invalid value" in text:
        return UsageError(
            "request.platform",
            f"the resolver does not know the platform {target.platform}",
            why="uv knows manylinux_2_17, _2_28 and _2_31 to _2_40",
            do="take the nearest one that is not newer than the host's glibc",
        )
    if _NETWORK.search(text):
        return _unreachable(why)
    return SourceError(
        "source.unsatisfiable",
        "the wheels cannot be resolved",
        why=why,
        do="change the requirements, constraints or overrides, `newest`, or the indexes",
    )


def _unreachable(why: str) -> SourceError:
    return SourceError(
        "source.unreachable",
        "the wheels cannot be resolved: an index did not answer",
        why=why,
        do="check network, proxy and the index, or take it out of pip's and uv's configuration "
        "(`pip config list`); a lock needs every index that is configured",
    )


def _sentence(text: str) -> str:
    """What uv says, on one line: its error, then the causes. Bounded, without hints."""
    body = text.split("\nhint:")[0]
    lines = [line.strip().removeprefix("error: ") for line in body.splitlines()]
    shown = [line for line in lines if line and not line.startswith("warning:")]
    said = "; ".join(line.removeprefix("cause: ") for line in shown)
    return said[-1000:] or "uv gave no reason"
