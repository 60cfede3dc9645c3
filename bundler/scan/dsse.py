"""DSSE envelopes (secure-systems-lab/dsse 1.0.0: envelope.md, protocol.md), as cosign writes them.

Our own statements have a narrower form, in airgap.format.statement: one signature, one spelling.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from bundler.scan import bounds, strictjson

_STANDARD = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_URL_SAFE = re.compile(r"[A-Za-z0-9_-]*={0,2}")
_TO_STANDARD = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Envelope:
    """What was signed and as what; `keyid` is left unread, for nothing may be decided by it."""

    kind: str
    payload: bytes
    signatures: tuple[bytes, ...]

    def message(self) -> bytes:
        """The bytes under each signature: the pre-authentication encoding (protocol.md)."""
        kind = self.kind.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)


def read(document: Any) -> Envelope:
    """An envelope from its JSON. Fields that are not known are ignored, as envelope.md asks.

    Raises strictjson.Malformed when a field is missing or is not what it must be.
    """
    if not isinstance(document, dict):
        raise strictjson.Malformed("it is no table")
    signatures = document.get("signatures")
    if not isinstance(signatures, list) or not all(isinstance(s, dict) for s in signatures):
        raise strictjson.Malformed("signatures is no list of tables")
    if len(signatures) > bounds.MAX_ENVELOPE_SIGNATURES:
        raise strictjson.Malformed(f"it has {len(signatures)} signatures")
    kind = document.get("payloadType")
    if not isinstance(kind, str) or not kind.isascii():
        raise strictjson.Malformed("payloadType is no plain text")
    return Envelope(
        kind=kind,
        payload=_decoded(document.get("payload"), "payload"),
        signatures=tuple(_decoded(s.get("sig"), "sig") for s in signatures),
    )


def _decoded(value: Any, where: str) -> bytes:
    """Base64 (RFC 4648), standard or URL-safe: protocol.md has verifiers take either."""
    if not isinstance(value, str) or not (_STANDARD.fullmatch(value) or _URL_SAFE.fullmatch(value)):
        raise strictjson.Malformed(f"{where} is not base64")
    try:
        return base64.b64decode(value.translate(_TO_STANDARD), validate=True)
    except (binascii.Error, ValueError) as e:
        raise strictjson.Malformed(f"{where} is not base64") from e
