"""Advisories: what one names is refused, and what was held against nothing is not called clean."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner, Result

from airgap.errors import UsageError
from airgap.format.artifacts import LockedFile, LockedWheels
from airgap.format.evidence import Findings
from airgap.format.lock import Lock
from bundler.cli import cli
from bundler.request import read as read_request
from bundler.scan.advisories import AdvisoryScanner, read
from bundler.scan.gate import scan
from bundler.workspace import Build, Workspace
from tests.unit.scan.makers import WHEEL_NAME, ids, look, severity, wheel
from tests.unit.scan.test_gate import artifact

VERSION = "1.0"


def osv(id: str = "PYSEC-1", **affected: Any) -> dict[str, Any]:
    """An advisory about the package `tiny` in OSV's format."""
    package = {"ecosystem": "PyPI", "name": "Tiny"}
    return {"id": id, "summary": "it is bad", "affected": [{"package": package, **affected}]}


def events(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"ranges": [{"type": "ECOSYSTEM", "events": [{k: v} for k, v in pairs]}]}


def folder(path: Path, *documents: dict[str, Any]) -> Path:
    made = path / "advisories" / "PyPI"
    made.mkdir(parents=True)
    for i, document in enumerate(documents):
        (made / f"{i}.json").write_text(json.dumps(document))
    return made.parent


@pytest.mark.parametrize(
    "affected",
    [
        {"versions": [VERSION]},
        {"versions": ["1.0.0"]},
        {},
        events(("introduced", "0")),
        events(("introduced", "0"), ("fixed", "1.1")),
        events(("introduced", "0"), ("last_affected", "1.0")),
        events(("introduced", "0"), ("fixed", "0.5"), ("introduced", "0.9")),
    ],
)
def test_vulnerable_wheel_is_refused(tmp_path: Path, affected: dict[str, Any]) -> None:
    scanner = AdvisoryScanner(read(folder(tmp_path, osv(**affected))))
    result = look(scanner, tmp_path, {WHEEL_NAME: wheel()}, "wheels")
    assert severity(result, "advisory.vulnerable") == "medium"
    assert "PYSEC-1" in result.findings[0].message


def test_malicious_wheel_is_critical_under_either_name(tmp_path: Path) -> None:
    for i, document in enumerate(
        [osv("MAL-2026-1", versions=[VERSION]), {**osv("GHSA-x"), "aliases": ["MAL-2026-1"]}]
    ):
        scanner = AdvisoryScanner(read(folder(tmp_path / str(i), document)))
        result = look(scanner, tmp_path, {WHEEL_NAME: wheel()}, "wheels")
        assert severity(result, "advisory.malicious") == "critical"


@pytest.mark.parametrize(
    "document",
    [
        osv(versions=["1.1", "2.0"]),
        osv(**events(("introduced", "0"), ("fixed", "1.0"))),
        osv(**events(("introduced", "1.0.1"))),
        osv(**events(("introduced", "0"), ("last_affected", "0.9"))),
    ],
)
def test_wheel_that_no_advisory_means_is_held_against_them(
    tmp_path: Path, document: dict[str, Any]
) -> None:
    scanner = AdvisoryScanner(read(folder(tmp_path, document)))
    result = look(scanner, tmp_path, {WHEEL_NAME: wheel()}, "wheels")
    assert result.findings == [] and len(result.covered) == 1


def test_withdrawn_and_foreign_advisories_do_not_count(tmp_path: Path) -> None:
    foreign = osv("NPM-1")
    foreign["affected"][0]["package"]["ecosystem"] = "npm"
    withdrawn = {**osv("PYSEC-2"), "withdrawn": "2026-01-01T00:00:00Z"}
    sound = osv("PYSEC-3", versions=["9"])
    advisories = read(folder(tmp_path, foreign, withdrawn, sound))
    assert advisories.count == 1
    result = look(AdvisoryScanner(advisories), tmp_path, {WHEEL_NAME: wheel()}, "wheels")
    assert ids(result) == set()


def test_without_advisories_nothing_is_called_checked(tmp_path: Path) -> None:
    findings, coverage = scan([artifact(tmp_path, {WHEEL_NAME: wheel()}, "wheels")])
    (said,) = [t for t in findings.tools if t.startswith("osv-advisories")]
    assert "no package was checked" in said and "(0 files read)" in said
    assert "advisories" not in coverage.files[0].scanners


def test_version_that_cannot_be_compared_is_not_thereby_clean(tmp_path: Path) -> None:
    scanner = AdvisoryScanner(read(folder(tmp_path, osv(versions=["1"]))))
    name = "tiny-banana-py3-none-any.whl"
    result = look(scanner, tmp_path, {name: wheel()}, "wheels")
    assert ids(result) == {"advisory.vulnerable"}


@pytest.mark.parametrize("content", [None, "[]", "{", '{"id": "x"}', '{"affected": 1}'])
def test_folder_that_holds_no_advisory_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(UsageError) as caught:
        read(tmp_path)
    assert (caught.value.id, caught.value.exit_code) == ("scan.advisories", 2)


def test_digest_of_the_folder_changes_with_any_advisory(tmp_path: Path) -> None:
    one = read(folder(tmp_path / "1", osv())).digest
    same = read(folder(tmp_path / "2", osv())).digest
    other = read(folder(tmp_path / "3", osv("PYSEC-9"))).digest
    assert one == same != other


REQUEST = """
name = "tiny"
version = "1"
summary = "A tiny one"

[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "cpu"

[[wheels]]
requirements = ["tiny"]
"""


@pytest.fixture
def locked(tmp_path: Path) -> Path:
    """A request whose lock names one wheel, which lies in the store of the home beside it."""
    path = tmp_path / "tiny.toml"
    path.write_text(REQUEST)
    request = read_request(path)
    workspace = Workspace(tmp_path / "home")
    added = workspace.store.add_bytes(wheel())
    file = LockedFile(
        path=PurePosixPath(WHEEL_NAME), sha256=added.sha256, size=len(wheel()), label="an index"
    )
    lock = Lock(
        request=hashlib.sha256(request.to_bytes()).hexdigest(),
        name="tiny",
        version="1",
        summary=request.summary,
        release=1,
        created=1_790_000_000,
        not_after=1_800_000_000,
        audience=(),
        handling="",
        target=request.target,
        artifacts=(LockedWheels(name="wheels", requirements=("tiny",), files=(file,)),),
    )
    build = workspace.build("tiny", "1")
    build.folder.mkdir(parents=True)
    build.lock.write_bytes(lock.to_bytes())
    return path


def run_scan(request: Path, *argv: str) -> tuple[Result, Build]:
    home = request.parent / "home"
    result = CliRunner().invoke(cli, ["--home", str(home), "scan", str(request), *argv])
    return result, Workspace(home).build("tiny", "1")


def test_scan_from_the_command_line_holds_wheels_against_a_folder(locked: Path) -> None:
    advisories = folder(locked.parent, osv("MAL-2026-1", versions=[VERSION]))
    result, build = run_scan(locked, "--advisories", str(advisories))
    assert result.exit_code == 0, result.output
    found = Findings.from_bytes(build.findings.read_bytes())
    assert [(f.id, f.severity) for f in found.findings] == [("advisory.malicious", "critical")]
    assert any(t.startswith("osv-advisories") and "1 of PyPI" in t for t in found.tools)


def test_scan_without_a_folder_says_that_nothing_was_checked(locked: Path) -> None:
    result, build = run_scan(locked)
    assert result.exit_code == 0, result.output
    tools = Findings.from_bytes(build.findings.read_bytes()).tools
    assert "osv-advisories: none were given, no package was checked (0 files read)" in tools


def test_scan_with_a_folder_of_nothing_is_refused_and_writes_nothing(locked: Path) -> None:
    (locked.parent / "empty").mkdir()
    result, build = run_scan(locked, "--advisories", str(locked.parent / "empty"))
    assert isinstance(result.exception, UsageError)
    assert (result.exception.id, result.exception.exit_code) == ("scan.advisories", 2)
    assert not build.findings.exists()
