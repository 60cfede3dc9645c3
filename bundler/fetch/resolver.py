"""uv resolves requirements for a target that is not this machine; its answer is PEP 751 TOML."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from airgap import fsio
from airgap.errors import SealiftError, SourceError, UsageError
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.fetch.pip_config import Sources

# 200 packages over a slow link with retries take a few minutes; more is a hang.
TIMEOUT_SECONDS = 1800

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
    `source.unreachable`, `source.no-wheel` or `source.unsatisfiable`.
    """
    fsio.make_dirs(cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix="resolve-") as scratch:
        argv = _arguments(request, target, sources, Path(scratch))
        argv += ["--cache-dir", str(cache / "uv")]
        requirements = "\n".join(request.requirements) + "\n"
        done = _run(argv, requirements, base)
    if done.returncode != 0:
        raise _failure(done.stderr, target)
    return done.stdout


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
    argv = [find_uv(), "pip", "compile", "-", "--quiet", "--no-header", "--color", "never"]
    argv += ["--format", "pylock.toml", "--only-binary", ":all:"]
    argv += ["--python", sys.executable, "--python-version", target.python]
    argv += ["--python-platform", target.platform, "--index-strategy", "first-index"]
    argv += _file_option("--constraints", request.constraints, scratch)
    argv += _file_option("--overrides", request.overrides, scratch)
    if request.newest is not None:
        argv += ["--exclude-newer", _after(request.newest)]
    return argv + sources.arguments()


def _file_option(option: str, lines: Sequence[str], scratch: Path) -> list[str]:
    if not lines:
        return []
    path = scratch / f"{option.strip('-')}.txt"
    fsio.write(path, ("\n".join(lines) + "\n").encode("utf-8"))
    return [option, str(path)]


def _after(day: str) -> str:
    """The end of that day in UTC; uv would take a bare date in the local time zone."""
    try:
        next_day = datetime.date.fromisoformat(day) + datetime.timedelta(days=1)
    except (ValueError, OverflowError) as e:
        raise UsageError(
            "request.newest", f"'{day}' is not a day", why=str(e), do="write it as 2026-11-01"
        ) from e
    return f"{next_day.isoformat()}T00:00:00Z"


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
    no_wheel = _NO_WHEEL.search(text)
    if no_wheel:
        return SourceError(
            "source.no-wheel",
            f"{no_wheel.group(1)} has no wheel for Python {target.python} on {target.platform}",
            why=why,
            do="choose another version or a newer platform, or put a wheel of it into a folder "
            "and name that in find-links; nothing is built from source here",
        )
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
