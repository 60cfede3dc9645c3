"""From a folder on a medium to a payload whose every byte is known to be approved.

The steps and their numbers are those of docs/bundle-format.md section 6. Each step's result is a
type that the next one asks for: what was only parsed cannot be imported, what was only named
cannot be installed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airgap import bounded, carrier, fsio, limits
from airgap.carrier import Expected, Quarantine
from airgap.errors import IntegrityError, PolicyError, SealiftError
from airgap.events import Sink, silent
from airgap.format import layout
from airgap.format.evidence import Coverage, Findings
from airgap.format.manifest import Blob, Manifest
from airgap.format.policy import Policy
from airgap.meter import Meter
from airgap.parallel import each
from airgap.policy import judge_evidence, judge_manifest, refuse
from airgap.store import hash_file, wrong_digest, wrong_size
from airgap.trust.decide import Approved, Decision, decide
from airgap.trust.state import Remembered


@dataclass(frozen=True)
class Installed:
    """What the host already runs under a bundle's name, for ordering: its release."""

    version: str
    release: int


@dataclass(frozen=True)
class Payload:
    """A bundle whose names and sizes are exactly what the approved manifest makes.

    `files`: path -> SHA-256 and size of everything outside trust/; `blobs`: the manifest's own.
    """

    bundle: Path
    approved: Approved
    files: Mapping[str, Expected]
    blobs: tuple[Blob, ...]

    def blob_path(self, sha256: str) -> Path:
        """Where that blob lies on the medium."""
        return self.bundle / layout.BLOBS / sha256


def read_trust(
    bundle: Path, state: Remembered, policy: Policy, clock: int
) -> tuple[Quarantine, Decision]:
    """Steps 2 to 6: quarantine the trust folder and decide. Raises nothing about trust itself:
    the decision carries what was learned and the outcome."""
    found = carrier.quarantine(bundle)
    return found, decide(state, found.files, clock, policy)


def check_policy(policy: Policy, manifest: Manifest) -> None:
    """Step 7: the host's policy over the manifest alone."""
    refuse(policy, manifest, judge_manifest(policy, manifest))


def check_release(
    policy: Policy, manifest: Manifest, installed: Installed | None, *, downgrade: bool
) -> None:
    """Step 7: an older release than the installed one needs the flag and the policy."""
    if installed is None or manifest.release >= installed.release:
        return
    if downgrade and policy.allow_downgrade:
        return
    how = "its policy forbids it" if downgrade else "--allow-downgrade was not given"
    raise PolicyError(
        "policy.downgrade",
        f"{manifest.name} {manifest.version} (release {manifest.release}) is older than the "
        f"installed {installed.version} (release {installed.release})",
        why=f"going back to an older approved version must be asked for, and {how}",
        do="use `airgap rollback`, or a policy with allow-downgrade = true and --allow-downgrade",
    )


def check_shape(found: Quarantine, bundle: Path, approved: Approved) -> Payload:
    """Step 8: the exact set of names and sizes, by lstat only."""
    generated = layout.generate(approved.manifest)
    files = _expected(found, bundle, approved, generated)
    trust = {f"{layout.TRUST}/{n}": Expected("", len(d)) for n, d in found.raw.items()}
    carrier.check_names(bundle, {**files, **trust})
    return Payload(bundle, approved, files, approved.manifest.blobs())


def _expected(
    found: Quarantine, bundle: Path, approved: Approved, generated: layout.Generated
) -> dict[str, Expected]:
    manifest = approved.manifest
    made = {
        layout.README: layout.readme(manifest, approved.digest),
        layout.OCI_LAYOUT: layout.OCI_LAYOUT_BYTES,
        layout.INDEX: generated.index,
        **{f"{layout.BLOBS}/{sha}": data for sha, data in generated.blobs.items()},
    }
    out = {name: Expected(hashlib.sha256(d).hexdigest(), len(d)) for name, d in made.items()}
    for b in manifest.blobs():
        out[f"{layout.BLOBS}/{b.sha256}"] = Expected(b.sha256, b.size)
    out[layout.REPORT] = Expected(approved.verdicts.report_sha256, _report_size(bundle))
    sums = layout.sums(
        {n: e.sha256 for n, e in out.items()}
        | {
            f"{layout.TRUST}/{name}": hashlib.sha256(data).hexdigest()
            for name, data in found.raw.items()
        }
    )
    out[layout.SUMS] = Expected(hashlib.sha256(sums).hexdigest(), len(sums))
    return out


def _report_size(bundle: Path) -> int:
    """The statements name the report's digest but not its size: take it, bounded, from lstat."""
    try:
        size = os.lstat(bundle / layout.REPORT).st_size
    except FileNotFoundError:
        return 0
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {bundle / layout.REPORT}") from e
    return min(size, limits.MAX_REPORT_BYTES)


def hash_payload(payload: Payload, sink: Sink = silent) -> None:
    """Step 11 without keeping anything: read every file once, on all cores, and name every bad
    one. Raises IntegrityError (the first one's, with all names)."""
    _hash_files(payload, dict(payload.files), sink, "verify")


def hash_documents(payload: Payload) -> None:
    """Step 10: the few small files beside the manifest's blobs; an import reads those itself."""
    own = {f"{layout.BLOBS}/{b.sha256}" for b in payload.blobs}
    _hash_files(payload, {n: e for n, e in payload.files.items() if n not in own}, silent, "check")


def _hash_files(payload: Payload, files: dict[str, Expected], sink: Sink, label: str) -> None:
    meter = Meter(sink, label, sum(e.size for e in files.values()), len(files))
    bad: list[SealiftError] = []

    def check(item: tuple[str, Expected]) -> None:
        name, want = item
        try:
            found = hash_file(payload.bundle / name, meter.advance, want.size)
            if found.size != want.size:
                raise wrong_size(name, found.size, want.size)
            if found.sha256 != want.sha256:
                raise wrong_digest(name, found.sha256, want.sha256)
        except SealiftError as e:
            bad.append(e)
        meter.file_done()

    # Largest first: the last files to finish are small, so no core waits long.
    each(sorted(files.items(), key=lambda i: -i[1].size), check, keep_going=True)
    meter.end()
    _raise_all(bad)


def _raise_all(bad: list[SealiftError]) -> None:
    if len(bad) < 2:
        for error in bad:
            raise error
        return
    bad.sort(key=lambda e: e.what)
    names = "\n         ".join(e.what for e in bad[:50])
    raise IntegrityError(
        bad[0].id,
        f"{len(bad)} files are damaged or were changed",
        why=names,
        do="copy these files again from their source; if they fail again, the medium is bad",
    )


def read_evidence(manifest: Manifest, blobs: Path) -> tuple[Findings, Coverage]:
    """Findings and ledger, from a folder of blobs, re-hashed as they are read."""
    findings = _evidence(manifest, "findings", blobs)
    coverage = _evidence(manifest, "coverage", blobs)
    return Findings.from_bytes(findings), Coverage.from_bytes(coverage)


def _evidence(manifest: Manifest, kind: str, blobs: Path) -> bytes:
    entry = manifest.evidence_of(kind)
    data = bounded.read(blobs / entry.sha256, limits.MAX_DOCUMENT_BYTES)
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise wrong_digest(f"the {kind} evidence", found, entry.sha256)
    return data


def check_evidence(policy: Policy, manifest: Manifest, blobs: Path, now: int) -> None:
    """Step 10: the host judges findings and coverage by its own policy."""
    findings, coverage = read_evidence(manifest, blobs)
    refuse(policy, manifest, judge_evidence(policy, manifest, findings, coverage, now))
