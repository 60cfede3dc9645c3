"""The gate: every file of every artifact is looked at, and what nobody could read is said.

Same files and tool versions, same evidence: sorted, no clock values, no paths of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from airgap.events import Progress, Sink, Warn, silent
from airgap.format.evidence import Coverage, Covered, Finding, Findings
from airgap.format.types import SEVERITIES
from bundler.scan import bounds
from bundler.scan.config import ConfigScanner
from bundler.scan.content import ContentScanner
from bundler.scan.gguf import GgufScanner
from bundler.scan.image import ImageScanner
from bundler.scan.interface import Scanner, ScanResult, Subject, Unscanned
from bundler.scan.pickles import ModelscanScanner
from bundler.scan.report import finding, shown
from bundler.scan.safetensors import SafetensorsScanner
from bundler.scan.sniff import sniff
from bundler.scan.text import TextScanner
from bundler.scan.wheel import WheelScanner

NAME = "gate"
# No scanner sees such a file.
_UNREADABLE = "unreadable"
# Which scanners cover a file of a kind by reading it: all named ones must have done so. Others may
# add findings, but to be free of those is not to have been read. What is not here is not covered.
_FIT: dict[tuple[str, str], frozenset[str]] = {
    ("model", "safetensors"): frozenset(["safetensors"]),
    ("model", "gguf"): frozenset(["gguf"]),
    ("model", "json"): frozenset(["config", "text"]),
    ("model", "text"): frozenset(["text"]),
    ("model", "script"): frozenset(["text"]),
    ("model", "empty"): frozenset(["text"]),
    ("model", "pickle"): frozenset(["modelscan"]),
    ("model", "npy-object"): frozenset(["modelscan"]),
    ("wheels", "wheel"): frozenset(["wheel"]),
}
# Of an image the manifest says what each file is, whatever else its bytes look like (a tar that
# ends in a wheel looks like a zip), and no loader but the engine's opens it.
_FIT_ALL = {"image": frozenset(["image"])}


@dataclass(frozen=True)
class ScanFile:
    """One file to look at: its place in the artifact, its identity, its size in bytes, and where
    its bytes lie on this machine (read only)."""

    path: PurePosixPath
    sha256: str
    size: int
    file: Path


@dataclass(frozen=True)
class ScanArtifact:
    """One artifact, `kind` as in the manifest, with its files in manifest order."""

    name: str
    kind: str
    files: tuple[ScanFile, ...]


@dataclass(frozen=True)
class _Outcome:
    """What one scanner said of one artifact; `failed` says why it said nothing, else empty."""

    scanner: str
    result: ScanResult
    failed: str = ""


def scanners(image_keys: Sequence[str] = ()) -> tuple[Scanner, ...]:
    """All of them, in the order in which they look. `image_keys`: the policy's, in PEM."""
    return (
        ContentScanner(),
        SafetensorsScanner(),
        GgufScanner(),
        ConfigScanner(),
        TextScanner(),
        ModelscanScanner(),
        WheelScanner(),
        ImageScanner(image_keys),
    )


def scan(
    artifacts: Sequence[ScanArtifact], sink: Sink = silent, *, image_keys: Sequence[str] = ()
) -> tuple[Findings, Coverage]:
    """Look at all files with all scanners; say which images one of `image_keys` signed.

    A file is covered only when the scanners fit for its content read it. A scanner that fails
    covers nothing of that artifact, hides no finding of another, and raises nothing.
    """
    return scan_with(scanners(image_keys), artifacts, sink)


def scan_with(
    tools: Sequence[Scanner], artifacts: Sequence[ScanArtifact], sink: Sink = silent
) -> tuple[Findings, Coverage]:
    """As `scan`, with scanners of the caller's choice."""
    found: list[Finding] = []
    ledger: list[Covered] = []
    read = dict.fromkeys((t.name for t in tools), 0)
    steps = len(artifacts) * len(tools)
    for number, artifact in enumerate(artifacts):
        subjects = [_subject(artifact, f) for f in artifact.files]
        outcomes = []
        for i, tool in enumerate(tools):
            sink(Progress("scan", number * len(tools) + i, steps, unit="steps"))
            outcomes.append(_run(tool, [s for s in subjects if s.kind != _UNREADABLE], sink))
        for outcome in outcomes:
            read[outcome.scanner] += len(outcome.result.covered)
        found += _findings(subjects, outcomes)
        ledger += [_line(s, outcomes) for s in subjects]
    sink(Progress("scan", steps, steps, unit="steps"))
    # A count of 0 says that the tool was there and nothing was for it.
    names = tuple(f"{t.version()} ({read[t.name]} files read)" for t in tools)
    return Findings(tools=names, findings=tuple(found)), Coverage(files=tuple(ledger))


def _subject(artifact: ScanArtifact, file: ScanFile) -> Subject:
    try:
        kind = sniff(file.file)
        if file.file.stat().st_size != file.size:
            kind = _UNREADABLE
    except OSError:
        kind = _UNREADABLE
    if artifact.kind == "wheels" and kind == "zip":
        kind = "wheel"
    return Subject(artifact.name, artifact.kind, file.path, file.sha256, file.size, file.file, kind)


def _run(tool: Scanner, subjects: Sequence[Subject], sink: Sink) -> _Outcome:
    """Run one scanner; whatever it raises becomes a reason. Its text may hold paths of this
    machine, so the evidence gets the class alone and the person at hand the rest."""
    try:
        return _Outcome(tool.name, tool.scan(subjects))
    except Exception as e:  # noqa: BLE001 - hostile input meets much code; a fault is no pass
        sink(Warn("scan.failed", f"scanner {tool.name} failed: {type(e).__name__}: {e}"))
        return _Outcome(tool.name, ScanResult(), f"scanner {tool.name} failed: {type(e).__name__}")


def _findings(subjects: Sequence[Subject], outcomes: Sequence[_Outcome]) -> list[Finding]:
    """Of one artifact, in order of its files; of one file, worst first."""
    by_path: dict[PurePosixPath, set[Finding]] = {}
    for outcome in outcomes:
        for f in outcome.result.findings:
            by_path.setdefault(f.path, set()).add(f)
    out: list[Finding] = []
    for subject in subjects:
        out += _bounded(subject, sorted(by_path.get(subject.path, ()), key=_worst_first))
    return out


def _worst_first(f: Finding) -> tuple[int, str, str, str, tuple[str, ...]]:
    return -SEVERITIES.index(f.severity), f.id, f.scanner, f.message, f.details


def _bounded(subject: Subject, found: list[Finding]) -> list[Finding]:
    """A file made to drown the report gets one line for the rest, as severe as the worst of it and
    under an id of its own, so that a waiver for what is shown does not excuse what is not."""
    kept, rest = found[: bounds.MAX_FINDINGS_PER_FILE], found[bounds.MAX_FINDINGS_PER_FILE :]
    if rest:
        text = f"and {len(rest)} more findings in this file"
        kept.append(finding(NAME, subject, "scan.more-findings", rest[0].severity, text))
    return kept


def _line(subject: Subject, outcomes: Sequence[_Outcome]) -> Covered:
    readers = tuple(sorted(o.scanner for o in outcomes if subject.path in o.result.covered))
    reason = _why_not(subject, set(readers), outcomes)
    return Covered(
        artifact=subject.artifact,
        path=subject.path,
        sha256=subject.sha256,
        verdict="not-covered" if reason else "covered",
        kind=subject.kind,
        scanners=() if reason else readers,
        reason=reason[: bounds.MAX_REASON_CHARS],
    )


def _why_not(subject: Subject, readers: set[str], outcomes: Sequence[_Outcome]) -> str:
    """Why `subject` is not covered; empty when it is."""
    if subject.kind == _UNREADABLE:
        return "its bytes cannot be read, or their number is not the locked one"
    for outcome in outcomes:
        if outcome.failed:
            return outcome.failed
    for outcome in outcomes:
        for unscanned in outcome.result.unscanned:
            if unscanned.path == subject.path:
                return _said(outcome.scanner, unscanned)
    fit = _FIT.get((subject.artifact_kind, subject.kind)) or _FIT_ALL.get(subject.artifact_kind)
    if fit is None:
        return f"no scanner reads content of the kind '{subject.kind}' in {subject.artifact_kind}"
    missing = sorted(fit - readers)
    return f"not read by the scanner {missing[0]}" if missing else ""


def _said(scanner: str, unscanned: Unscanned) -> str:
    """A reason as the scanner gave it; made visible where it holds what a line may not."""
    reason = unscanned.reason
    return f"{scanner}: {reason if reason.isascii() and reason.isprintable() else shown(reason)}"
