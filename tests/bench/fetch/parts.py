"""The parts: each makes its payload, runs the rounds, prints a table and its goals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from airgap import limits
from tests.bench.fetch import contestants, image, kill, pipeline
from tests.bench.fetch.contestants import MODEL, Home
from tests.bench.fetch.site import Hub, noise, serving
from tests.bench.fetch.table import Rows, faster, most, rounds, table

_GB = 1_000_000_000
# The slow server: seconds before each answer, bytes a second of a connection, one drop in so many.
_SLOW = ("--delay", "0.040", "--rate", "6250000", "--drop", "200")


def _names(count: int, size: int, suffix: str = "safetensors") -> dict[str, int]:
    return {f"model-{i + 1:05}.{suffix}": size for i in range(count)}


def hub8(work: Path, count: int) -> None:
    """2 GB in 8 files from a Hub on loopback."""
    _hub(work, count, "2 GB in 8 files", 8)


def hub1(work: Path, count: int) -> None:
    """2 GB in 1 file from a Hub on loopback."""
    _hub(work, count, "2 GB in 1 file", 1)


def _hub(work: Path, count: int, title: str, files: int) -> None:
    with serving(noise(work / "repo", _names(files, 2 * _GB // files))) as hub:
        home = Home(work, hub.endpoint, MODEL)
        group = [
            contestants.curl(hub, work),
            contestants.curl(hub, work, durable=True),
            home.fetch(),
            home.lock_and_fetch(),
            contestants.hf_download(hub, work),
        ]
        rows = rounds(group, count, hub.sent)
        _print(title, rows, hub, "curl; SHA-256")
    print(most(rows, "sealift fetch", "curl; SHA-256", 1.2))
    print(faster(rows, "sealift lock --fetch", "hf download", 2.5))


def small(work: Path, count: int) -> None:
    """5,000 files of 4 KiB from a Hub on loopback."""
    sizes = _names(4999, 4 * limits.KIB, "json") | _names(1, 4 * limits.KIB)
    repo = noise(work / "repo", sizes)
    with serving(repo) as hub:
        home = Home(work, hub.endpoint, MODEL)
        group = [home.lock_and_fetch(), contestants.hf_download(hub, work)]
        rows = rounds(group, count, hub.sent, work / "aside")
        _print("5,000 files of 4 KiB", rows, hub, "hf download")
    print(faster(rows, "sealift lock --fetch", "hf download", 5.0))


def slow(work: Path, count: int) -> None:
    """One file over a link that is far away, capped for each connection, and drops."""
    _slow(work, count, "400 MB, slow and dropping", _names(1, 400_000_000))


def slow_files(work: Path, count: int) -> None:
    """Many files over the same link: here more answers are dropped."""
    _slow(work, count, "400 files of 256 KiB, the same", _names(400, 256 * limits.KIB))


def _slow(work: Path, count: int, title: str, sizes: dict[str, int]) -> None:
    with serving(noise(work / "repo", sizes), *_SLOW) as hub:
        home = Home(work, hub.endpoint, MODEL)
        group = [home.fetch(), contestants.aria2c(hub, work)]
        rows = rounds(group, count, hub.sent)
        _print(title, rows, hub, "aria2c -x8")
    print(faster(rows, "sealift fetch", "aria2c -x8", 0.9))


def _print(title: str, rows: Rows, hub: Hub, peer: str) -> None:
    print(table(title, rows, hub.size, peer))


Part = Callable[[Path, int], None]
ALL: Sequence[Part] = (hub8, hub1, slow, slow_files, small, image.image, kill.kill, pipeline.build)
