"""The child that runs modelscan: `python -I -m bundler.scan.modelscan_child` in an empty folder.

Reads `{"files": [[path, suffix], ...], "limits": {}}` from stdin, answers `{"answers": [...]}` on
stdout, one for each file in the same order. It binds itself before it imports what reads hostile
bytes. modelscan goes by names, so it gets a link with the suffix that the parent asked for.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import resource
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    """Answer one request. The exit status is 0 only when the answer is whole."""
    request = json.load(sys.stdin)
    limits = request["limits"]
    _bind(limits["address_bytes"], limits["cpu_seconds"])
    answer = sys.stdout
    # modelscan and what it imports may print: only the answer goes to stdout.
    with contextlib.redirect_stdout(sys.stderr):
        answers = _look(_link(request["files"]), limits["reported"])
    json.dump({"answers": answers}, answer)
    answer.flush()
    return 0


def _bind(address_bytes: int, cpu_seconds: int) -> None:
    """Hard limits, which this process cannot raise again. It writes no file and leaves no core."""
    for what, limit in (
        (resource.RLIMIT_AS, address_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(what, (bound, bound))


def _link(files: list[list[str]]) -> list[Path]:
    """A link for each file, below where we stand: modelscan may read settings from there itself."""
    folder = Path.cwd() / "files"
    folder.mkdir()
    links = [folder / f"{i:06d}{suffix}" for i, (_, suffix) in enumerate(files)]
    for link, (target, _) in zip(links, files, strict=True):
        link.symlink_to(target)
    return links


def _look(links: list[Path], reported: int) -> list[dict[str, Any]]:
    from modelscan.modelscan import ModelScan
    from modelscan.settings import DEFAULT_SETTINGS

    # Refusals are in the results; the log repeats them with paths of this machine.
    logging.disable(logging.CRITICAL)
    settings = copy.deepcopy(DEFAULT_SETTINGS)
    return [_answer(ModelScan(settings).scan(link), link.name, reported) for link in links]


def _answer(report: dict[str, Any], name: str, reported: int) -> dict[str, Any]:
    """What decides, without times and without paths of this machine, in a fixed order: modelscan
    collects in sets."""
    issues = sorted({_issue(i) for i in report["issues"]})
    return {
        "scanned": name in report["summary"]["scanned"].get("scanned_files", []),
        "issues": [dict(zip(_ISSUE, i, strict=True)) for i in issues[:reported]],
        "errors": sorted({str(e["category"]) for e in report["errors"]})[:reported],
    }


_ISSUE = ("severity", "module", "operator")


def _issue(issue: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(issue.get(key, ""))[:200] for key in _ISSUE)


if __name__ == "__main__":
    raise SystemExit(main())
