"""Officers' statements: who approved this manifest, checked by the keys of the trusted root."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature
from tuf.api.metadata import Root

from airgap import limits
from airgap.errors import FormatError, TrustError
from airgap.format import canonical
from airgap.format.statement import Envelope, Statement, b64decode
from airgap.trust.keys import can_check, officer_of


@dataclass(frozen=True)
class Verdicts:
    """Verified statements on one manifest, officer -> statement, and what all of them read."""

    passed: dict[str, Statement]
    failed: dict[str, Statement]
    threshold: int
    officers: tuple[str, ...]
    report_sha256: str


def read_statement(data: bytes, keys: dict[str, Key]) -> tuple[str, Statement] | None:
    """Officer and statement of one envelope; None when its key is not an officer's of `keys`.

    The signature is checked over the exact payload before the payload is parsed.
    Raises TrustError `trust.statement` or `trust.scheme-unavailable`.
    """
    try:
        envelope = Envelope.from_json(canonical.decode(data, max_bytes=limits.MAX_STATEMENT_BYTES))
        signature = envelope.signatures[0]
        key = keys.get(signature.keyid)
        if key is None:
            return None
        _check_signature(key, signature.sig, envelope.pae())
        statement = envelope.statement()
    except FormatError as e:
        raise _bad(f"it is not well-formed at {e.where}: {e.why}") from e
    officer = officer_of(key)
    if officer is None or statement.predicate.verifier.id != officer:
        raise _bad(f"{officer}'s key signed in the name of {statement.predicate.verifier.id}")
    return officer, statement


def _check_signature(key: Key, sig: str, signed: bytes) -> None:
    if not can_check(key):
        raise TrustError(
            "trust.scheme-unavailable",
            "an officer's statement cannot be checked on this host",
            why=f"it is signed by {key.scheme}, which needs the cryptography package",
            do="install the cryptography wheel from the installer kit, then run this again",
        )
    raw = b64decode(sig, "signatures[0].sig")
    try:
        key.verify_signature(Signature(key.keyid, raw.hex()), signed)
    except UnverifiedSignatureError as e:
        raise _bad(f"the signature of {officer_of(key)} does not fit") from e


def count(root: Root, manifest_sha256: str, envelopes: Iterable[bytes]) -> Verdicts:
    """Step 6c: the verdicts of the root's officers on this manifest. Raises TrustError when fewer
    than the threshold of role targets approve it, or when they read different reports."""
    role = root.roles["targets"]
    keys = {keyid: root.keys[keyid] for keyid in role.keyids}
    passed: dict[str, Statement] = {}
    failed: dict[str, Statement] = {}
    blind: TrustError | None = None
    for data in envelopes:
        try:
            found = read_statement(data, keys)
        except TrustError as e:
            if e.id != "trust.scheme-unavailable":
                raise
            blind = blind or e  # enough of the others may do without it
            continue
        if found is None or found[1].manifest_sha256 != manifest_sha256:
            continue
        officer, statement = found
        if officer in passed or officer in failed:
            raise _bad(f"{officer} made two statements on one manifest")
        (passed if statement.passed else failed)[officer] = statement
    officers = tuple(sorted(str(officer_of(k)) for k in keys.values()))
    if len(passed) < role.threshold and blind is not None:
        raise blind
    if len(passed) < role.threshold:
        raise _too_few(root, manifest_sha256, passed, failed, officers)
    return Verdicts(passed, failed, role.threshold, officers, _one_report(passed))


def _one_report(passed: dict[str, Statement]) -> str:
    reports = {s.input_digest("report") for s in passed.values()}
    if len(reports) != 1 or None in reports:
        raise _bad("the officers did not all read the same report")
    return str(reports.pop())


def _too_few(
    root: Root,
    manifest_sha256: str,
    passed: dict[str, Statement],
    failed: dict[str, Statement],
    officers: tuple[str, ...],
) -> TrustError:
    threshold = root.roles["targets"].threshold
    by = f"approved by {', '.join(sorted(passed))} only" if passed else "approved by nobody"
    against = f"; {', '.join(sorted(failed))} refused it" if failed else ""
    return TrustError(
        "trust.approvals",
        f"this manifest has {len(passed)} of the {threshold} approvals that root {root.version} "
        f"requires (sha256 {manifest_sha256[:12]})",
        why=f"{by}{against}; it needs {threshold} of {', '.join(officers)}",
        do="bring the bundle after enough officers ran `sealift approve`",
    )


def _bad(why: str) -> TrustError:
    return TrustError(
        "trust.statement",
        "an officer's statement was refused",
        why=why,
        do="copy the bundle again; if it is refused again, ask the builder for a new one",
    )


def envelope_name(data: bytes) -> str:
    """The file name of a statement in a trust folder: its own digest, so that none collide."""
    return f"{hashlib.sha256(data).hexdigest()[:32]}.dsse.json"
