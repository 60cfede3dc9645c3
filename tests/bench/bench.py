"""`make bench`: verify and install against what anybody would use instead, on this machine, in one
run. Whole processes, in turn, several rounds; medians, because the machine may be shared.

    python -m tests.bench.bench [--size 4G] [--shards 8] [--rounds 5] [--work .sealift/bench]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from airgap import fsio, limits
from bundler.pack import pyz
from bundler.pack.kit import pinned_wheels
from tests.bench import contestants, payload
from tests.bench.contestants import Contestant
from tests.bench.measure import Cost, run

_UNITS = {"K": limits.KIB, "M": limits.MIB, "G": limits.GIB}
# Contestant -> the most that its time may be of its peer's.
GOALS = {
    "airgap verify": 1.15,
    "airgap.pyz verify": 1.15,
    "airgap install": 1.25,
    "airgap.pyz install": 1.25,
}
_EXPLAINED = """
read, written: bytes that read and write calls moved (rchar, wchar of /proc/PID/io), from the page
cache or not, for each byte of payload. disk: bytes the process made the disk take (write_bytes).
The page cache is warm. Seconds are medians of whole processes that ran in turn, starts included;
`airgap` is the installed package, `airgap.pyz` the one file under `python -I -S`: same code, but
compiled at every start. Its start is the same for a bundle of any size."""


def main() -> None:
    """Make the payload, run the rounds, print the table."""
    args = _arguments()
    work = args.work.absolute()
    fsio.make_dirs(work)
    for old in ("connected", "medium", "xfs"):
        fsio.remove_tree(work / old)
    program = work / "airgap.pyz"
    fsio.write(program, pyz.build(pinned_wheels(work / "kit"), work), 0o755)
    _say(f"payload   {args.size:,} bytes in {args.shards} shards below {work}")
    made = payload.make(work, args.size, args.shards)
    with _xfs(work, made.size) as mount:
        groups = [
            contestants.hashing(made, work, program),
            contestants.copying(made, work, program)
            + (contestants.cloning(made, work, mount) if mount else []),
        ]
        costs = {c.name: cost for group in groups for c, cost in _rounds(group, args.rounds)}
    print(table([c for group in groups for c in group], costs, made.size))
    print(_EXPLAINED)
    print("\n".join(goals(costs)))
    for left in ("medium", "copy", "host", "verify-host"):
        fsio.remove_tree(work / left)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--size", type=_size, default=4 * limits.GIB, help="of the payload: 4G")
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path(".sealift/bench"))
    return parser.parse_args()


def _size(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper())
    return int(text[:-1]) * unit if unit else int(text)


def _rounds(group: Sequence[Contestant], rounds: int) -> list[tuple[Contestant, list[Cost]]]:
    """Every contestant once a round; every other round backwards, so that nobody always runs
    after the same one."""
    out: dict[str, list[Cost]] = {c.name: [] for c in group}
    for number in range(rounds):
        for one in group if number % 2 == 0 else reversed(group):
            if one.prepare is not None:
                one.prepare()
            out[one.name].append(run(one.argv))
            _say(f"round {number + 1}   {one.name:<28} {out[one.name][-1].seconds:6.2f} s")
    return [(c, out[c.name]) for c in group]


def median(costs: Sequence[Cost]) -> float:
    """Median of the seconds."""
    return statistics.median(c.seconds for c in costs)


def table(group: Sequence[Contestant], costs: dict[str, list[Cost]], size: int) -> str:
    """One line for each contestant."""
    head = f"{'':<28} {'seconds':>8} {'to peer':>8} {'read':>6} {'written':>8} {'disk':>6}  peer"
    lines = [head]
    for one in group:
        mine = costs[one.name]
        last = mine[-1]
        ratio = median(mine) / median(costs[one.peer])
        moved = f"{last.read / size:6.2f} {last.written / size:8.2f} {last.stored / size:6.2f}"
        peer = "" if one.peer == one.name else one.peer
        lines.append(f"{one.name:<28} {median(mine):8.2f} {ratio:8.2f} {moved}  {peer}".rstrip())
    return "\n".join(lines)


def goals(costs: dict[str, list[Cost]]) -> list[str]:
    """Whether the goals were reached in this run."""
    out = []
    for name, most in GOALS.items():
        peer = "cp -r; sync" if name.endswith("install") else "SHA-256, Python, all cores"
        ratio = median(costs[name]) / median(costs[peer])
        word = "reached" if ratio <= most else "MISSED"
        out.append(f"goal      {name} <= {most:.2f} x {peer}: {ratio:.2f}, {word}")
    return out


@contextlib.contextmanager
def _xfs(work: Path, size: int) -> Iterator[Path | None]:
    """A small xfs with reflink in a file, mounted; None, and why, where that is not permitted."""
    image, mount = work / "xfs.img", work / "xfs"
    if os.geteuid() != 0:
        _say("skipped   reflink: mounting an xfs image needs root")
        yield None
        return
    fsio.make_dirs(mount)
    with open(image, "wb") as f:
        f.truncate(3 * size + 512 * limits.MIB)
    try:
        for argv in (
            ["mkfs.xfs", "-q", "-m", "reflink=1", str(image)],
            ["mount", "-o", "loop", str(image), str(mount)],
        ):
            subprocess.run(argv, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as e:
        _say(f"skipped   reflink: {getattr(e, 'stderr', '') or e}")
        yield None
    else:
        try:
            yield mount
        finally:
            subprocess.run(["umount", str(mount)], check=True)
    finally:
        image.unlink(missing_ok=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
