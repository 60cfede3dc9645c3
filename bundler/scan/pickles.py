"""modelscan on what it takes up, in a child process with bounds on memory, time and files.

It is a second opinion, not the gate: by default a pickle is refused by `content` whatever modelscan
thinks of it. Three things make an answer of modelscan count: no issues, no errors, and the file in
its `scanned_files`. What it skips, it has not covered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from airgap.errors import SourceError
from bundler.scan import bounds
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import finding, shown
from bundler.scan.sniff import PICKLE_CAPABLE

NAME = "modelscan"
# Its own list, matched there with case; h5, keras and pb need packages that are not installed, so
# that they come back as errors and not covered.
_SUFFIXES = frozenset(
    [".h5", ".keras", ".pb", ".npy", ".npz", ".zip", ".pkl", ".pickle", ".joblib", ".dill"]
) | frozenset([".dat", ".data", ".bin", ".pt", ".pth", ".ckpt"])
# The suffix under which modelscan reads a kind; what it cannot open it reports as an error.
_SUFFIX_OF_KIND = {"zip": ".zip", "npy-object": ".npy"}
_SEVERITIES = {"CRITICAL": "critical", "HIGH": "high", "MEDIUM": "medium", "LOW": "low"}


class ModelscanScanner:
    """Runs modelscan's API in a child (`bundler.scan.modelscan_child`)."""

    name = NAME

    def version(self) -> str:
        """`modelscan` and the version that is installed."""
        try:
            return f"modelscan {metadata.version('modelscan')}"
        except metadata.PackageNotFoundError:
            return "modelscan (not installed)"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up pickle-capable content whatever its name, and every name modelscan knows."""
        result = ScanResult()
        chosen = [(s, suffix) for s in artifact if (suffix := _suffix(s)) is not None]
        if not chosen:
            return result
        answers = _ask([(str(s.file.absolute()), suffix) for s, suffix in chosen])
        for (subject, _), answer in zip(chosen, answers, strict=True):
            _judge(subject, answer, result)
        return result


def _suffix(subject: Subject) -> str | None:
    """The suffix to show modelscan, which goes by names alone; None for what is not for it."""
    if not subject.in_tree:
        return None
    if subject.kind in PICKLE_CAPABLE:
        return _SUFFIX_OF_KIND.get(subject.kind, ".pkl")
    suffix = subject.path.suffix.lower()
    return suffix if suffix in _SUFFIXES else None


def _ask(files: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """One answer for each (file, suffix). Raises SourceError `scan.modelscan` if there is none."""
    request = json.dumps({"files": files, "limits": _limits()})
    with tempfile.TemporaryDirectory(prefix="sealift-scan-") as empty:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-m", "bundler.scan.modelscan_child"],
                input=request.encode(),
                capture_output=True,
                cwd=empty,
                env=_environment(empty),
                timeout=bounds.MODELSCAN_WALL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as e:
            raise _failed(f"it took over {bounds.MODELSCAN_WALL_SECONDS} seconds") from e
    if done.returncode != 0:
        raise _failed(f"it ended with status {done.returncode}")
    return _answers(done.stdout, len(files))


def _limits() -> dict[str, int]:
    return {
        "address_bytes": bounds.MODELSCAN_ADDRESS_BYTES,
        "cpu_seconds": bounds.MODELSCAN_CPU_SECONDS,
        "reported": bounds.MODELSCAN_MAX_REPORTED,
    }


def _environment(home: str) -> dict[str, str]:
    """Nothing of ours reaches it but a home that will be gone; one thread for the numeric libraries
    of numpy, which reserve memory for each."""
    return {
        "HOME": home,
        "TMPDIR": home,
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _answers(stdout: bytes, count: int) -> list[dict[str, Any]]:
    if len(stdout) > bounds.MODELSCAN_MAX_ANSWER_BYTES:
        raise _failed("its answer is too long")
    try:
        answers = json.loads(stdout)["answers"]
    except (ValueError, KeyError, TypeError) as e:
        raise _failed("its answer cannot be read") from e
    if not isinstance(answers, list) or len(answers) != count:
        raise _failed("it did not answer for every file")
    return answers


def _failed(why: str) -> SourceError:
    return SourceError(
        "scan.modelscan",
        "modelscan gave no result",
        why=why,
        do="install the extra 'connected' and scan again; if it stays, look at the file by hand",
    )


def _judge(subject: Subject, answer: dict[str, Any], result: ScanResult) -> None:
    for issue in answer["issues"]:
        severity = _SEVERITIES.get(str(issue["severity"]), "critical")
        message = f"it uses {shown(issue['module'])} {shown(issue['operator'])}"
        result.findings.append(finding(NAME, subject, "modelscan.issue", severity, message))
    if answer["errors"]:
        errors = ", ".join(sorted(set(map(str, answer["errors"]))))
        message = f"modelscan could not read it to its end: {shown(errors)}"
        result.findings.append(finding(NAME, subject, "modelscan.error", "high", message))
        result.unscanned.append(Unscanned(subject.path, "modelscan met an error in it"))
    elif answer["scanned"]:
        result.covered.add(subject.path)
    elif subject.kind in PICKLE_CAPABLE:
        result.unscanned.append(Unscanned(subject.path, "modelscan skipped it"))
