"""The gate: every file of every artifact is looked at, and what nobody could read is said.

Same files and tool versions, same evidence: sorted, no clock values, no paths of this machine.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from airgap.events import Progress, Sink, Warn, silent
from airgap.format.evidence import ChatTemplate, Coverage, Covered, Finding, Findings
from airgap.format.types import SEVERITIES
from bundler.scan import bounds
from bundler.scan.advisories import Advisories, AdvisoryScanner
from bundler.scan.ahead import Ahead
from bundler.scan.card import CardScanner
from bundler.scan.config import ConfigScanner
from bundler.scan.content import ContentScanner
from bundler.scan.gguf import GgufScanner
from bundler.scan.image import ImageScanner
from bundler.scan.interface import (
    UNSTATED,
    OnBytes,
    Scanner,
    ScanResult,
    Stated,
    Subject,
    Unscanned,
)
from bundler.scan.pickles import ModelscanScanner
from bundler.scan.plain import PlainScanner
from bundler.scan.report import finding, shown
from bundler.scan.safetensors import SafetensorsScanner
from bundler.scan.sniff import sniff
from bundler.scan.templates import TemplateScanner
from bundler.scan.text import TextScanner
from bundler.scan.tokenizer import TokenizerScanner
from bundler.scan.wheel import WheelScanner

NAME = "gate"
# No scanner sees such a file.
_UNREADABLE = "unreadable"
# Which scanners cover a file of a kind by reading it: all named ones must have done so. Others may
# add findings, but to be free of those is not to have been read. What is not here is not covered.
_MODEL: dict[str, frozenset[str]] = {
    "safetensors": frozenset(["safetensors"]),
    "gguf": frozenset(["gguf"]),
    "json": frozenset(["config", "text"]),
    "text": frozenset(["text"]),
    "script": frozenset(["text"]),
    "empty": frozenset(["text"]),
    "sentencepiece": frozenset(["tokenizer"]),
    "pickle": frozenset(["modelscan"]),
    "npy-object": frozenset(["modelscan"]),
}
# By kind of artifact, then by kind of content. An artifact that does not stand here has no scanner,
# and nothing of it is covered.
_FIT: dict[str, dict[str, frozenset[str]]] = {
    "model": _MODEL,
    "adapter": {kind: _MODEL[kind] for kind in _MODEL if kind != "gguf"},
    "files": {
        "json": frozenset(["config", "text"]),
        "text": frozenset(["text", "plain"]),
        "empty": frozenset(["text", "plain"]),
        "cubin": frozenset(["plain"]),
    },
    "wheels": {"wheel": frozenset(["wheel"])},
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
    """One artifact of the lock, by its `kind` there, with its files in manifest order."""

    name: str
    kind: str
    files: tuple[ScanFile, ...]
    stated: Stated = UNSTATED


@dataclass(frozen=True)
class _Outcome:
    """What one scanner said of one artifact; `failed` says why it said nothing, else empty."""

    scanner: str
    result: ScanResult
    failed: str = ""


def scanners(
    advisories: Advisories | None = None,
    image_keys: Sequence[str] = (),
    ahead: Ahead | None = None,
) -> tuple[Scanner, ...]:
    """All of them, in the order in which they look. `image_keys`: the policy's, in PEM."""
    return (
        ContentScanner(),
        SafetensorsScanner(),
        GgufScanner(),
        ConfigScanner(),
        TextScanner(),
        TemplateScanner(),
        TokenizerScanner(),
        CardScanner(),
        PlainScanner(),
        ModelscanScanner(),
        WheelScanner(ahead),
        ImageScanner(image_keys, ahead),
        AdvisoryScanner(advisories),
    )


def scan(
    artifacts: Sequence[ScanArtifact],
    sink: Sink = silent,
    advisories: Advisories | None = None,
    *,
    image_keys: Sequence[str] = (),
    ahead: Ahead | None = None,
) -> tuple[Findings, Coverage]:
    """Look at all files with all scanners; say which images `image_keys` signed or attest.

    A file is covered only when the scanners fit for its content read it. A scanner that fails
    covers nothing of that artifact, hides no finding of another, and raises nothing. `ahead`: files
    that were begun while others still came; it changes no word of what is found.
    """
    return scan_with(scanners(advisories, image_keys, ahead), artifacts, sink)


def scan_with(
    tools: Sequence[Scanner], artifacts: Sequence[ScanArtifact], sink: Sink = silent
) -> tuple[Findings, Coverage]:
    """As `scan`, with scanners of the caller's choice."""
    found: list[Finding] = []
    ledger: list[Covered] = []
    templates: list[ChatTemplate] = []
    read = dict.fromkeys((t.name for t in tools), 0)
    meter = _Meter(artifacts, sink)
    for artifact in artifacts:
        subjects = [_subject(artifact, f) for f in artifact.files]
        readable = [s for s in subjects if s.kind != _UNREADABLE]
        outcomes = [_run(tool, readable, meter.add, sink) for tool in tools]
        meter.artifact_done(artifact)
        for outcome in outcomes:
            read[outcome.scanner] += len(outcome.result.covered)
            templates += outcome.result.templates
        found += _findings(subjects, outcomes)
        ledger += [_line(s, outcomes) for s in subjects]
    # A count of 0 says that the tool was there and nothing was for it.
    names = tuple(f"{t.version()} ({read[t.name]} files read)" for t in tools)
    findings = Findings(tools=names, findings=tuple(found), templates=tuple(templates) or None)
    return findings, Coverage(files=tuple(ledger))


class _Meter:
    """Progress in bytes of what is looked at. Scanners that read all of a file tell as they go;
    what headers stand for is done when the artifact is."""

    def __init__(self, artifacts: Sequence[ScanArtifact], sink: Sink) -> None:
        self._total = sum(f.size for a in artifacts for f in a.files)
        self._sink = sink
        self._base = self._read = 0
        self._lock = threading.Lock()
        sink(Progress("scan", 0, self._total))

    def add(self, count: int) -> None:
        """`count` more bytes of the artifact at hand were read; from any thread."""
        with self._lock:
            self._read += count
            self._sink(Progress("scan", min(self._base + self._read, self._total), self._total))

    def artifact_done(self, artifact: ScanArtifact) -> None:
        """Everything of `artifact` was looked at."""
        with self._lock:
            self._base += sum(f.size for f in artifact.files)
            self._read = 0
            self._sink(Progress("scan", self._base, self._total))


def _subject(artifact: ScanArtifact, file: ScanFile) -> Subject:
    try:
        kind = sniff(file.file)
        if file.file.stat().st_size != file.size:
            kind = _UNREADABLE
    except OSError:
        kind = _UNREADABLE
    if artifact.kind == "wheels" and kind == "zip":
        kind = "wheel"
    return Subject(
        artifact=artifact.name,
        artifact_kind=artifact.kind,
        path=file.path,
        sha256=file.sha256,
        size=file.size,
        file=file.file,
        kind=kind,
        stated=artifact.stated,
    )


def _run(tool: Scanner, subjects: Sequence[Subject], on_bytes: OnBytes, sink: Sink) -> _Outcome:
    """Run one scanner; whatever it raises becomes a reason. Its text may hold paths of this
    machine, so the evidence gets the class alone and the person at hand the rest."""
    try:
        return _Outcome(tool.name, tool.scan(subjects, on_bytes))
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


def _worst_first(f: Finding) -> tuple[int, str, str, str, str, tuple[str, ...]]:
    severity = -SEVERITIES.index(f.severity)
    return severity, f.id, f.scanner, f.predicate or "", f.message, f.details


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
    fits = _FIT.get(subject.artifact_kind, {})
    fit = fits.get(subject.kind) or _FIT_ALL.get(subject.artifact_kind)
    if fit is None:
        return f"no scanner reads content of the kind '{subject.kind}' in {subject.artifact_kind}"
    missing = sorted(fit - readers)
    return f"not read by the scanner {missing[0]}" if missing else ""


def _said(scanner: str, unscanned: Unscanned) -> str:
    """A reason as the scanner gave it; made visible where it holds what a line may not."""
    reason = unscanned.reason
    return f"{scanner}: {reason if reason.isascii() and reason.isprintable() else shown(reason)}"
