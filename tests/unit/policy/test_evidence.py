"""The receiver's judgement of evidence: what is not proven scanned, is not scanned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from airgap.format.evidence import Coverage, Finding, Findings
from airgap.format.manifest import Manifest
from airgap.format.policy import STRICT, Policy
from airgap.format.types import Waiver
from airgap.policy import judge_evidence
from tests.vectors.pieces import NOW, content, coverage

MANIFEST = Manifest.from_bytes(content().manifest())
LEDGER = Coverage.from_bytes(coverage(MANIFEST.artifacts))
CLEAN = Findings(tools=("t 1",), findings=())


def problems(
    ledger: Coverage = LEDGER,
    findings: Findings = CLEAN,
    policy: Policy = STRICT,
    manifest: Manifest = MANIFEST,
    now: int = NOW,
) -> list[str]:
    return [p.id for p in judge_evidence(policy, manifest, findings, ledger, now)]


def test_whole_ledger_without_findings_passes() -> None:
    assert problems() == []


def test_file_that_the_ledger_leaves_out_was_not_scanned() -> None:
    assert problems(Coverage(files=LEDGER.files[1:])) == ["policy.not-scanned"]
    assert len(problems(Coverage(files=()))) == 2


def test_line_about_other_bytes_of_that_name_does_not_count() -> None:
    other = replace(LEDGER.files[0], sha256="0" * 64)
    assert problems(Coverage(files=(other, *LEDGER.files[1:]))) == ["policy.not-scanned"]


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_lines_for_one_file_the_worse_one_counts(order: int) -> None:
    worse = replace(LEDGER.files[0], verdict="not-covered", scanners=(), reason="it timed out")
    files = (worse, *LEDGER.files)[::order]
    assert problems(Coverage(files=files)) == ["policy.not-scanned"]


def found(**changes: object) -> Findings:
    one = LEDGER.files[0]
    values = {
        "id": "config.auto-map",
        "severity": "high",
        "scanner": "config",
        "artifact": one.artifact,
        "path": PurePosixPath(one.path),
        "sha256": one.sha256,
        "message": "loads code",
        **changes,
    }
    return Findings(tools=("t 1",), findings=(Finding(**values),))


def test_finding_at_the_policys_severity_refuses_and_one_below_does_not() -> None:
    assert problems(findings=found(severity="medium")) == ["policy.finding"]
    assert problems(findings=found(severity="low")) == []
    lax = replace(STRICT, fail_severity="critical")
    assert problems(findings=found(), policy=lax) == []


def test_waiver_excuses_one_finding_in_one_files_bytes_until_its_day() -> None:
    one = LEDGER.files[0]
    waiver = Waiver(finding="config.auto-map", sha256=one.sha256, reason="r", until=NOW + 1)
    waived = replace(MANIFEST, waivers=(waiver,))
    assert problems(findings=found(), manifest=waived) == []
    assert problems(findings=found(), manifest=waived, now=NOW + 1) == ["policy.finding"]
    assert problems(findings=found(id="config.code"), manifest=waived) == ["policy.finding"]
    assert problems(findings=found(sha256="0" * 64), manifest=waived) == ["policy.finding"]
