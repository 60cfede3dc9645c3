"""An officer's verdict: a statement in DSSE, and for PASSED the TUF signatures."""

from __future__ import annotations

import base64

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata

from airgap.errors import IntegrityError, PolicyError
from airgap.format.codec import Document
from airgap.format.statement import (
    Digest,
    Envelope,
    EnvelopeSignature,
    PolicyRef,
    Resource,
    Statement,
    Summary,
    Verifier,
    pre_auth,
    rfc3339,
)
from airgap.policy import judge_evidence, judge_manifest, refuse
from airgap.trust.rules import officers
from bundler.officers.desk import Desk, Review
from bundler.officers.packet import Packet, RoleSignature, SignatureFile, write_signature


def check_manifest(packet: Packet, now: int) -> None:
    """Before PASSED: the report is what manifest and evidence make, and the gate's own policy
    admits them. Raises IntegrityError `packet.report` or PolicyError."""
    from bundler.evidence.report import render

    manifest, policy = packet.parsed_manifest(), packet.policy()
    findings, coverage = packet.findings(), packet.coverage()
    rendered = render(manifest, packet.file.manifest or "", findings, coverage, policy)
    if rendered != packet.report:
        raise IntegrityError(
            "packet.report",
            "REVIEW.html does not say what the manifest and its evidence say",
            why="rendering it here gives another file",
            do="use the Sealift version that the builder uses; if it is the same, "
            "do not sign, and tell the other officers",
        )
    # The audience is the receiving host's to judge, so it is not asked here.
    problems = [p for p in judge_manifest(policy, manifest) if p.id != "policy.audience"]
    problems += judge_evidence(policy, manifest, findings, coverage, now)
    refuse(policy, manifest, tuple(problems))


def sign(
    desk: Desk,
    review: Review,
    officer: str,
    signer: Signer,
    now: int,
    *,
    passed: bool,
    comment: str,
) -> SignatureFile:
    """Sign what was reviewed. The desk's memory is written first: a crash in between can lose a
    signature, never make two contents for one version. Raises PolicyError, IntegrityError."""
    packet = review.packet
    keyid = signer.public_key.keyid
    known = {k.keyid for role in ("root", "targets") for k in officers(review.root, role).values()}
    leaving = packet.file.kind == "rotate"
    if keyid not in known and not leaving:
        raise PolicyError(
            "trust.not-an-officer",
            f"the key of {officer} is not in the root",
            why=f"root {review.root.version} names other keys",
            do="use the key that was given to `sealift trust init`",
        )
    if passed and packet.file.kind == "manifest":
        check_manifest(packet, now)
    signatures: tuple[RoleSignature, ...] = ()
    if passed:
        desk.record(review)
        signatures = tuple(_sign_role(packet, role, signer) for role in sorted(packet.staged))
    else:
        desk.remember(review)
    statement = None
    if packet.file.kind == "manifest":
        made = _statement(packet, officer, now, passed=passed, comment=comment)
        statement = _envelope(made, signer).to_bytes().decode()
    file = SignatureFile(
        officer=officer, packet=packet.digest, signatures=signatures, statement=statement
    )
    write_signature(packet, file)
    return file


def _sign_role(packet: Packet, role: str, signer: Signer) -> RoleSignature:
    signed_bytes = Metadata.from_bytes(packet.staged[role]).signed_bytes
    signature = signer.sign(signed_bytes)
    return RoleSignature(role=role, keyid=signature.keyid, sig=signature.signature)


def _statement(packet: Packet, officer: str, now: int, *, passed: bool, comment: str) -> Statement:
    manifest = packet.parsed_manifest()
    findings = manifest.evidence_of("findings").sha256
    inputs = {"report": packet.file.report or "", "findings": findings}
    return Statement(
        subject=(_resource(manifest.target_path, packet.file.manifest or ""),),
        predicate=Summary(
            verifier=Verifier(id=officer),
            time_verified=rfc3339(now),
            resource_uri=manifest.target_path,
            policy=PolicyRef(digest=Digest(sha256=manifest.evidence_of("policy").sha256)),
            input_attestations=tuple(_resource(n, s) for n, s in inputs.items()),
            verification_result="PASSED" if passed else "FAILED",
            comment=comment,
        ),
    )


def _resource(name: str, sha256: str) -> Resource:
    return Resource(name=name, digest=Digest(sha256=sha256))


def _envelope(statement: Document, signer: Signer) -> Envelope:
    payload = statement.to_bytes()
    signature = signer.sign(pre_auth(payload))
    sig = base64.b64encode(bytes.fromhex(signature.signature)).decode()
    return Envelope(
        payload=base64.b64encode(payload).decode(),
        signatures=(EnvelopeSignature(keyid=signature.keyid, sig=sig),),
    )
