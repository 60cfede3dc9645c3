"""Fetching against what anybody would use instead, on this machine.

    python -m tests.bench.fetch [PART ...] [--rounds 2] [--work .sealift/bench-fetch]

Each part runs alone too and removes what it made. A part is meant to take less than two minutes on
a machine that does nothing else; --rounds 1 where it does not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from airgap import fsio
from tests.bench.fetch.parts import ALL
from tests.bench.fetch.table import EXPLAINED, say


def main() -> None:
    """Run the parts that were asked for; all when none was."""
    parts = {part.__name__.replace("_", "-"): part for part in ALL}
    parser = argparse.ArgumentParser(prog="fetch", description=__doc__)
    parser.add_argument("part", nargs="*", choices=[*parts, []], help="all when left out")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path(".sealift/bench-fetch"))
    args = parser.parse_args()
    work = args.work.absolute()
    for name in args.part or parts:
        say(f"part      {name}: {parts[name].__doc__}")
        fsio.remove_tree(work)
        fsio.make_dirs(work)
        try:
            parts[name](work, args.rounds)
        finally:
            fsio.remove_tree(work)
    print(EXPLAINED)


if __name__ == "__main__":
    main()
