"""The judgement: a manifest and its evidence under the receiver's policy. Used on both sides.

Everything that refuses is said at once, not one by one.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from airgap.errors import PolicyError
from airgap.format.artifacts import Adapter, Image, Model, Wheels
from airgap.format.evidence import Coverage, Finding, Findings
from airgap.format.manifest import Manifest
from airgap.format.policy import STRICT, Policy
from airgap.format.types import SEVERITIES

DAY_SECONDS = 86_400
# Findings by which keys vouch for an image; `details` are the keys' fingerprints.
_SIGNED = "image.signed"
_ATTESTED = "image.attested"


@dataclass(frozen=True)
class Problem:
    """One reason to refuse: a stable id and a sentence."""

    id: str
    text: str


def load(path: Path) -> Policy:
    """The policy installed at `path`; the built-in strict one where there is none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return STRICT
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e
    return Policy.from_bytes(data)


def judge_manifest(policy: Policy, manifest: Manifest) -> tuple[Problem, ...]:
    """What the manifest itself says, before any payload is read."""
    out: list[Problem] = []
    if manifest.audience and policy.site not in manifest.audience:
        here = policy.site or "a host whose policy names no site"
        out.append(
            Problem("policy.audience", f"it is for {', '.join(manifest.audience)}, this is {here}")
        )
    if len(manifest.waivers) > policy.max_waivers:
        out.append(
            Problem(
                "policy.waivers",
                f"it waives {len(manifest.waivers)} findings, {policy.max_waivers} are allowed",
            )
        )
    for artifact in manifest.artifacts:
        if isinstance(artifact, Model) and artifact.format not in policy.formats:
            text = f"model {artifact.name} is {artifact.format}"
            out.append(Problem("policy.format", text))
        if isinstance(artifact, Model | Adapter):
            out += _judge_origin(policy, artifact)
        elif isinstance(artifact, Image):
            out += _judge_registry(policy, artifact)
        elif isinstance(artifact, Wheels):
            out += _judge_age(policy, artifact, manifest.created)
    return tuple(out)


def _judge_origin(policy: Policy, model: Model | Adapter) -> list[Problem]:
    out = []
    title = f"{model.kind} {model.name}"
    if policy.publishers is not None and model.publisher not in policy.publishers:
        who = model.publisher or "of an unknown publisher"
        out.append(Problem("policy.publisher", f"{title} is {who}"))
    if policy.licences is not None and model.licence not in policy.licences:
        what = model.licence or "without a licence"
        out.append(Problem("policy.licence", f"{title} is {what}"))
    return out


def _judge_registry(policy: Policy, image: Image) -> list[Problem]:
    registry = image.reference.partition("/")[0]
    if policy.registries is None or registry in policy.registries:
        return []
    return [Problem("policy.registry", f"image {image.name} is from {registry}")]


def _judge_age(policy: Policy, wheels: Wheels, locked: int) -> list[Problem]:
    """A malicious release is usually found within days: a wheel that is older was looked at."""
    if wheels.newest is None or locked - wheels.newest >= policy.min_wheel_age_days * DAY_SECONDS:
        return []
    days = max(0, locked - wheels.newest) // DAY_SECONDS
    asked = policy.min_wheel_age_days
    text = f"the youngest of {wheels.name} was {days} days old, {asked} are asked"
    return [Problem("policy.wheel-age", text)]


def judge_evidence(
    policy: Policy, manifest: Manifest, findings: Findings, coverage: Coverage, now: int
) -> tuple[Problem, ...]:
    """Findings at or above the policy's severity that nothing waives, and files nobody scanned.

    The ledger must name exactly the manifest's files: a file that it leaves out was not scanned.
    """
    out = []
    for f in findings.findings:
        if _severe(policy, f) and not _excused(policy, manifest, f, now):
            text = f"{f.severity} {f.id} in {f.artifact}/{f.path}: {f.message}"
            out.append(Problem("policy.finding", text))
    out += _judge_images(policy, manifest, findings)
    # Of two lines for one file the worse one counts: `not-covered` sorts last.
    lines = sorted(coverage.files, key=lambda c: c.verdict)
    scanned = {(c.artifact, c.path, c.sha256): c for c in lines}
    for artifact in manifest.artifacts:
        for entry in artifact.files:
            line = scanned.get((artifact.name, entry.path, entry.sha256))
            if line is None or line.verdict != "covered":
                why = line.reason if line else "it does not stand in the ledger"
                text = f"{artifact.name}/{entry.path} was not scanned: {why}"
                out.append(Problem("policy.not-scanned", text))
    return tuple(out)


def _judge_images(policy: Policy, manifest: Manifest, findings: Findings) -> list[Problem]:
    """One of the policy's keys signed each image, and attests of it each thing that the policy
    asks for: the evidence says which keys did."""
    if not policy.image_keys:
        return []
    trusted = {_fingerprint(pem) for pem in policy.image_keys}
    asked = f"any of the {len(trusted)} keys asked for"
    out = []
    for image in (a for a in manifest.artifacts if isinstance(a, Image)):
        if not _vouched(image, findings, _SIGNED) & trusted:
            text = f"image {image.name} is not signed by {asked}"
            out.append(Problem("policy.image-unsigned", text))
        for predicate in policy.image_attestations or ():
            if not _vouched(image, findings, _ATTESTED, predicate) & trusted:
                text = f"image {image.name} has no attestation {predicate} signed by {asked}"
                out.append(Problem("policy.image-unattested", text))
    return out


def _vouched(image: Image, findings: Findings, id: str, predicate: str | None = None) -> set[str]:
    """Fingerprints of the keys that vouch for the image in that way."""
    return {
        key
        for f in findings.findings
        if (f.id, f.artifact, f.sha256) == (id, image.name, image.digest)
        and f.predicate == predicate
        for key in f.details
    }


def _fingerprint(pem: str) -> str:
    """SHA-256 of the key that the PEM text holds (SubjectPublicKeyInfo); no key gives no match."""
    body = "".join(line for line in pem.split() if line.isascii()).partition("PUBLICKEY-----")[2]
    try:
        return hashlib.sha256(base64.b64decode(body.partition("-----")[0])).hexdigest()
    except ValueError:
        return ""


def _severe(policy: Policy, finding: Finding) -> bool:
    return SEVERITIES.index(finding.severity) >= SEVERITIES.index(policy.fail_severity)


def _excused(policy: Policy, manifest: Manifest, finding: Finding, now: int) -> bool:
    if finding.id == "wheel.pth" and finding.details:
        return set(finding.details) <= set(policy.pth_files)
    return any(
        w.finding == finding.id and w.sha256 == finding.sha256 and now < w.until
        for w in manifest.waivers
    )


def refuse(policy: Policy, manifest: Manifest, problems: tuple[Problem, ...]) -> None:
    """Raise one PolicyError that says every problem; return when there is none."""
    if not problems:
        return
    shown = [f"{p.id}: {p.text}" for p in problems[:20]]
    if len(problems) > 20:
        shown.append(f"and {len(problems) - 20} more")
    raise PolicyError(
        problems[0].id,
        f"policy '{policy.name}' refuses {manifest.name} {manifest.version}, "
        f"{len(problems)} {'reason' if len(problems) == 1 else 'reasons'}",
        why="\n         ".join(shown),
        do="ask for a bundle without them; a waiver needs officers' approval and a policy that "
        "allows waivers",
    )
