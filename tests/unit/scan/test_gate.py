"""The ledger: a file counts as covered only when a scanner fit for its content read it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pytest

from airgap.events import Event, Warn
from airgap.format.evidence import Coverage, Covered, Findings
from bundler.scan import bounds
from bundler.scan.gate import ScanArtifact, ScanFile, scan, scan_with, scanners
from bundler.scan.interface import OnBytes, ScanResult, Stated, Subject, Unscanned, unheard
from bundler.scan.report import finding
from tests.unit.scan.makers import WHEEL_NAME, Files, gguf, put, sound_safetensors, wheel


def artifact(folder: Path, files: Files, kind: str = "model", name: str = "model") -> ScanArtifact:
    subjects = put(folder / name, files)
    return ScanArtifact(
        name,
        kind,
        tuple(ScanFile(s.path, s.sha256, s.size, s.file) for s in subjects),
        Stated(licence="Apache-2.0"),
    )


TREE = {
    "config.json": json.dumps({"architectures": ["X"]}).encode(),
    "generation_config.json": b"{}",
    "special_tokens_map.json": b'{"pad_token": "<pad>"}',
    "tokenizer.json": b'{"model": {"vocab": {"a": 0, "<pad>": 1}}}',
    "vocab.json": b'{"a": 0, "<pad>": 1}',
    "model.safetensors": sound_safetensors("a"),
    "model.gguf": gguf(),
    "README.md": b"---\nlicense: apache-2.0\n---\n# A model\n",
    "LICENSE": b"Apache\n",
    "merges.txt": b"a b\n",
    "chat_template.jinja": b"{{ messages }}",
    "empty/.gitkeep": b"",
}


def line(coverage: Coverage, path: str) -> Covered:
    (found,) = [c for c in coverage.files if c.path == PurePosixPath(path)]
    return found


def test_ordinary_model_and_wheel_are_covered_without_findings(tmp_path: Path) -> None:
    findings, coverage = scan(
        [
            artifact(tmp_path, TREE),
            artifact(tmp_path, {WHEEL_NAME: wheel()}, "wheels", "wheels"),
        ]
    )
    assert findings.findings == ()
    assert {c.verdict for c in coverage.files} == {"covered"}
    paths = [str(c.path) for c in coverage.files]
    assert paths == [*TREE, WHEEL_NAME]
    assert line(coverage, "config.json").scanners == ("config", "text", "tokenizer")


def test_evidence_is_the_same_each_time_and_names_no_path_of_this_machine(tmp_path: Path) -> None:
    hostile = {**TREE, "m.pkl": b"cposix\nsystem\n(S'id'\ntR.", "x.json": b"{", "b": b"\x00"}
    first = [d.to_bytes() for d in scan([artifact(tmp_path / "one", hostile)])]
    again = [d.to_bytes() for d in scan([artifact(tmp_path / "two", hostile)])]
    assert first == again
    assert Findings.from_bytes(first[0]).findings
    assert str(tmp_path).encode() not in b"".join(first)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("weights", b"\x00\x01\x02" * 100),
        ("model.safetensors", b"\x00\x01\x02" * 100),
        ("model.gguf", b"# a text\n"),
        ("config.json", b"# a text\n"),
        ("lib.so", b"\x7fELF" + b"\x00" * 100),
        ("notes.txt", b"PK\x03\x04" + b"\x00" * 100),
        ("numbers.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr':'<f4'}  "),
        (WHEEL_NAME, wheel()),
    ],
)
def test_what_no_fit_scanner_read_is_not_covered(tmp_path: Path, name: str, data: bytes) -> None:
    _, coverage = scan([artifact(tmp_path, {name: data})])
    assert [c.verdict for c in coverage.files] == ["not-covered"]
    assert coverage.files[0].reason


def test_model_file_among_wheels_is_not_covered(tmp_path: Path) -> None:
    _, coverage = scan([artifact(tmp_path, TREE, "wheels")])
    assert {c.verdict for c in coverage.files} == {"not-covered"}


def test_file_that_is_not_there_is_not_covered(tmp_path: Path) -> None:
    gone = ScanFile(PurePosixPath("a"), "0" * 64, 1, tmp_path / "gone")
    _, coverage = scan([ScanArtifact("m", "model", (gone,))])
    assert [c.verdict for c in coverage.files] == ["not-covered"]
    assert str(tmp_path) not in coverage.files[0].reason


def test_file_of_another_size_than_locked_is_not_covered(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    other = ScanFile(PurePosixPath("a"), "0" * 64, 5, tmp_path / "a")
    _, coverage = scan([ScanArtifact("m", "model", (other,))])
    assert [c.verdict for c in coverage.files] == ["not-covered"]


class Failing:
    name = "failing"

    def version(self) -> str:
        return "failing 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        raise RecursionError(str(artifact[0].file))


class Claiming:
    """Says that it covered everything, and found much."""

    name = "claiming"

    def version(self) -> str:
        return "claiming 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        result = ScanResult(covered={s.path for s in artifact})
        for i in range(bounds.MAX_FINDINGS_PER_FILE):
            result.findings.append(finding("claiming", artifact[0], "a.low", "low", str(i)))
        result.findings.append(finding("claiming", artifact[0], "z.high", "high", "x"))
        return result


class Declining:
    name = "declining"

    def version(self) -> str:
        return "declining 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        reason = "not\nthis\u202e " + "x" * 1000
        return ScanResult(unscanned=[Unscanned(s.path, reason) for s in artifact])


def test_scanner_that_fails_covers_nothing_and_hides_nothing(tmp_path: Path) -> None:
    told: list[Event] = []
    files = {**TREE, "m.pkl": b"cposix\nsystem\n(S'id'\ntR."}
    findings, coverage = scan_with(
        [Failing(), *scanners()], [artifact(tmp_path, files)], told.append
    )
    assert {c.verdict for c in coverage.files} == {"not-covered"}
    assert {c.reason for c in coverage.files} == {"scanner failing failed: RecursionError"}
    assert "pickle.present" in {f.id for f in findings.findings}
    assert any(isinstance(e, Warn) for e in told)


def test_scanner_that_is_not_fit_for_a_kind_covers_nothing(tmp_path: Path) -> None:
    _, coverage = scan_with([Claiming()], [artifact(tmp_path, TREE)])
    assert {c.verdict for c in coverage.files} == {"not-covered"}


def test_file_that_one_scanner_declines_is_not_covered_by_the_others(tmp_path: Path) -> None:
    _, coverage = scan_with([*scanners(), Declining()], [artifact(tmp_path, TREE)])
    assert {c.verdict for c in coverage.files} == {"not-covered"}
    assert all(c.reason.startswith("declining: ") for c in coverage.files)


def test_flood_of_findings_hides_no_severe_one(tmp_path: Path) -> None:
    findings, _ = scan_with([Claiming()], [artifact(tmp_path, {"a": b"x"})])
    assert findings.findings[0].id == "z.high"
    assert findings.findings[-1].id == "scan.more-findings"
    assert len(findings.findings) == bounds.MAX_FINDINGS_PER_FILE + 1


def test_rest_of_a_flood_is_as_severe_as_its_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_FINDINGS_PER_FILE", 0)
    findings, _ = scan_with([Claiming()], [artifact(tmp_path, {"a": b"x"})])
    assert [(f.id, f.severity) for f in findings.findings] == [("scan.more-findings", "high")]


def test_tools_with_nothing_to_look_at_are_named_as_such(tmp_path: Path) -> None:
    findings, _ = scan([artifact(tmp_path, {"m.gguf": gguf()})])
    assert "modelscan 0.8.8 (0 files read)" in findings.tools
    assert "gguf-header 1 (1 files read)" in findings.tools


def test_every_scanner_has_a_name_of_its_own() -> None:
    names = [s.name for s in scanners()]
    assert len(set(names)) == len(names)
