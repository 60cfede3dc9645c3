"""Known malicious and vulnerable packages: wheels against a folder of OSV advisories.

The folder is the connected side's to bring (https://osv.dev, `all.zip` of PyPI, unpacked), so the
gate needs no network. What was not held against anything is said as that: without advisories no
package counts as checked. https://ossf.github.io/osv-schema/
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airgap import fsio
from airgap.errors import UsageError
from airgap.format.artifact_rules import wheel_name_version
from bundler.scan import bounds, strictjson
from bundler.scan.interface import OnBytes, ScanResult, Subject, unheard
from bundler.scan.report import finding, shown

NAME = "advisories"
_MALICIOUS = "MAL-"
_SEVERITIES = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium", "HIGH": "high"}


@dataclass(frozen=True)
class Advisory:
    """One advisory for one package: the versions it names, and its ranges of events."""

    id: str
    severity: str
    summary: str
    versions: frozenset[str]
    ranges: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class Advisories:
    """All of a folder, by canonical package name; `digest` is that of all their bytes."""

    by_name: Mapping[str, tuple[Advisory, ...]]
    count: int
    digest: str


def read(folder: Path) -> Advisories:
    """Every `*.json` below `folder`. Raises UsageError `scan.advisories` where one cannot be read,
    or none is about PyPI: an audit against nothing must not look like one."""
    by_name: dict[str, list[Advisory]] = {}
    whole, count = hashlib.sha256(), 0
    for path in _files(folder):
        with fsio.disk_errors(f"reading {path}"), path.open("rb") as file:
            data = file.read(bounds.MAX_ADVISORY_BYTES + 1)
        whole.update(hashlib.sha256(data).digest())
        try:
            found = list(_parse(strictjson.decode(data[: bounds.MAX_ADVISORY_BYTES])))
        except (strictjson.Malformed, AttributeError, KeyError, TypeError, ValueError) as e:
            raise _bad(f"{path.name} is no advisory in OSV's format: {type(e).__name__}") from e
        count += bool(found)
        for name, advisory in found:
            by_name.setdefault(name, []).append(advisory)
    if not by_name:
        raise _bad(f"there is no advisory about a PyPI package below {folder}")
    return Advisories({k: tuple(v) for k, v in by_name.items()}, count, whole.hexdigest()[:16])


def _files(folder: Path) -> list[Path]:
    out: list[Path] = []
    for top, folders, names in os.walk(folder):
        folders.sort()
        out += [Path(top) / n for n in sorted(names) if n.endswith(".json")]
        if len(out) > bounds.MAX_ADVISORIES:
            raise _bad(f"there are more than {bounds.MAX_ADVISORIES} files")
    return out


def _parse(document: Any) -> Iterator[tuple[str, Advisory]]:
    from packaging.utils import canonicalize_name

    if document.get("withdrawn"):
        return
    names = [str(document["id"]), *map(str, document.get("aliases") or ())]
    malicious = next((n for n in names if n.startswith(_MALICIOUS)), None)
    worded = str((document.get("database_specific") or {}).get("severity", "")).upper()
    severity = "critical" if malicious else _SEVERITIES.get(worded, "medium")
    if worded == "CRITICAL":
        severity = "critical"
    for affected in document.get("affected") or ():
        package = affected.get("package") or {}
        if package.get("ecosystem") != "PyPI":
            continue
        ranges = tuple(
            tuple((k, str(v)) for event in r.get("events") or () for k, v in event.items())
            for r in affected.get("ranges") or ()
            if r.get("type") == "ECOSYSTEM"
        )
        versions = frozenset(map(str, affected.get("versions") or ()))
        # An advisory that names no version means all of them.
        if not ranges and not versions:
            ranges = ((("introduced", "0"),),)
        summary = str(document.get("summary") or "")
        advisory = Advisory(malicious or names[0], severity, summary, versions, ranges)
        yield canonicalize_name(str(package["name"])), advisory


class AdvisoryScanner:
    """Holds the name and version of every wheel against the advisories, where some are given."""

    name = NAME

    def __init__(self, advisories: Advisories | None = None) -> None:
        self._advisories = advisories

    def version(self) -> str:
        """Which advisories: the same folder gives the same words."""
        if self._advisories is None:
            return "osv-advisories: none were given, no package was checked"
        return f"osv-advisories {self._advisories.digest}, {self._advisories.count} of PyPI"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up wheels by their names, which the wheel scanner holds against their metadata."""
        result = ScanResult()
        if self._advisories is None:
            return result
        for subject in artifact:
            if subject.artifact_kind == "wheels" and subject.kind == "wheel":
                _check(subject, self._advisories, result)
                result.covered.add(subject.path)
        return result


def _check(subject: Subject, advisories: Advisories, result: ScanResult) -> None:
    from packaging.utils import canonicalize_name

    name, version = wheel_name_version(subject.path.name)
    for advisory in advisories.by_name.get(canonicalize_name(name), ()):
        if _affects(advisory, version):
            malicious = advisory.id.startswith(_MALICIOUS)
            id = "advisory.malicious" if malicious else "advisory.vulnerable"
            text = f"{shown(advisory.id)} is about {name} {version}: {shown(advisory.summary)}"
            result.findings.append(finding(NAME, subject, id, advisory.severity, text))


def _affects(advisory: Advisory, text: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        version = Version(text)
        if any(version == Version(v) or text == v for v in advisory.versions if _is_version(v)):
            return True
        return any(_in_range(version, events) for events in advisory.ranges)
    except InvalidVersion:
        # What cannot be compared is not thereby free of it.
        return True


def _is_version(text: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def _in_range(version: Any, events: Sequence[tuple[str, str]]) -> bool:
    """OSV's evaluation: events in order of their versions, each turns it on or off. A local version
    (`+cpu`) counts as its public one."""
    from packaging.version import Version

    public = Version(version.public)
    known = [(Version(v), kind) for kind, v in events if kind != "limit"]
    affected = False
    for at, kind in sorted(known, key=lambda e: (e[0], e[1] != "introduced")):
        if kind == "introduced" and public >= at:
            affected = True
        elif (kind == "fixed" and public >= at) or (kind == "last_affected" and public > at):
            affected = False
    return affected


def _bad(why: str) -> UsageError:
    return UsageError(
        "scan.advisories",
        "the advisories cannot be used",
        why=why,
        do="name a folder of OSV advisories in JSON, such as the unpacked "
        "https://osv-vulnerabilities.storage.googleapis.com/PyPI/all.zip",
    )
