"""An officer's statement: an in-toto Statement v1 with a SLSA verification summary, in DSSE.

in-toto attestation spec v1 (https://in-toto.io/Statement/v1), SLSA VSA v1
(https://slsa.dev/verification_summary/v1), DSSE 1.0. Key names are theirs.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from dataclasses import dataclass
from typing import Annotated

from airgap import limits
from airgap.errors import FormatError
from airgap.format import canonical
from airgap.format.codec import Document, key
from airgap.format.rules import Choice, Text
from airgap.format.types import Line, Officer, Prose, Sha256

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
VSA_TYPE = "https://slsa.dev/verification_summary/v1"
Rfc3339 = Annotated[
    str,
    Text(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", 20, "a UTC time such as 2026-11-20T09:30:00Z"),
]
Base64 = Annotated[str, Text(r"[A-Za-z0-9+/]*={0,2}", limits.MAX_STATEMENT_BYTES * 2, "base64")]
KeyId = Annotated[str, Text(r"[0-9a-f]{64}", 64, "a TUF key id")]


@dataclass(frozen=True, kw_only=True)
class Digest(Document):
    """An in-toto digest set with exactly SHA-256."""

    sha256: Sha256


@dataclass(frozen=True, kw_only=True)
class Resource(Document):
    """An in-toto resource descriptor by name and digest."""

    name: Line
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Verifier(Document):
    """Who verified: the officer's name as in the trust root."""

    id: Officer


@dataclass(frozen=True, kw_only=True)
class PolicyRef(Document):
    """The policy that the gate judged by."""

    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Summary(Document):
    """SLSA verification summary. `comment` is ours: the officer's own words."""

    verifier: Verifier
    time_verified: Rfc3339 = key("timeVerified")
    resource_uri: Line = key("resourceUri")
    policy: PolicyRef
    input_attestations: tuple[Resource, ...] = key("inputAttestations")
    verification_result: Annotated[str, Choice(("PASSED", "FAILED"))] = key("verificationResult")
    verified_levels: tuple[Line, ...] = key("verifiedLevels", default=())
    comment: Prose = key("x-sealift-comment", default="")


@dataclass(frozen=True, kw_only=True)
class Statement(Document):
    """The verdict of one officer on one manifest."""

    type: Annotated[str, Choice((STATEMENT_TYPE,))] = key("_type", default=STATEMENT_TYPE)
    subject: tuple[Resource, ...]
    predicate_type: Annotated[str, Choice((VSA_TYPE,))] = key("predicateType", default=VSA_TYPE)
    predicate: Summary

    def validate(self) -> None:
        if len(self.subject) != 1:
            raise FormatError("format.value", "subject", "a statement is about one manifest")

    @property
    def manifest_sha256(self) -> str:
        """Which manifest it is about."""
        return self.subject[0].digest.sha256

    @property
    def passed(self) -> bool:
        """Whether the officer approves."""
        return self.predicate.verification_result == "PASSED"

    def input_digest(self, name: str) -> str | None:
        """SHA-256 of the input called `name` (`report`, `findings`), if the officer read it."""
        for r in self.predicate.input_attestations:
            if r.name == name:
                return r.digest.sha256
        return None


@dataclass(frozen=True, kw_only=True)
class EnvelopeSignature(Document):
    """One DSSE signature by a TUF key id."""

    keyid: KeyId
    sig: Base64


@dataclass(frozen=True, kw_only=True)
class Envelope(Document):
    """DSSE envelope with exactly one signature."""

    payload: Base64
    payload_type: Annotated[str, Choice((PAYLOAD_TYPE,))] = key("payloadType", default=PAYLOAD_TYPE)
    signatures: tuple[EnvelopeSignature, ...]

    def validate(self) -> None:
        if len(self.signatures) != 1:
            raise FormatError("format.value", "signatures", "one officer signs one envelope")

    def payload_bytes(self) -> bytes:
        """The signed payload as it was signed."""
        return b64decode(self.payload, "payload")

    def statement(self) -> Statement:
        """The payload as a statement. Verify the signature over `pae()` first."""
        return Statement.from_json(canonical.decode_canonical(self.payload_bytes()))

    def pae(self) -> bytes:
        """DSSE 1.0 pre-authentication encoding: the bytes under the signature."""
        return pre_auth(self.payload_bytes())


def pre_auth(payload: bytes) -> bytes:
    """DSSE PAE of an in-toto payload."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def b64decode(text: str, where: str) -> bytes:
    """Strict base64; FormatError otherwise."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise FormatError("format.value", where, "it is not base64") from e
    if base64.b64encode(data).decode() != text:
        raise FormatError("format.value", where, "its base64 has a second spelling")
    return data


def rfc3339(seconds: int) -> str:
    """UTC POSIX seconds as RFC 3339."""
    when = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
