"""What in-toto statements attest, and by whose word: signed first, read afterwards.

Two carriers hold them: the layers under cosign's `.att` tags, which are DSSE envelopes, and
Sigstore bundles. Pure: bytes in, an `Attested` or `Unproven` out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bundler.attachments import DSSE_ENVELOPE, SIGSTORE_BUNDLE
from bundler.scan import dsse, strictjson
from bundler.scan.image_keys import Key, signers
from bundler.scan.report import shown

KINDS = (DSSE_ENVELOPE, SIGSTORE_BUNDLE)
_IN_TOTO = "application/vnd.in-toto+json"
_STATEMENTS = ("https://in-toto.io/Statement/v0.1", "https://in-toto.io/Statement/v1")
_PREDICATE = re.compile(r"[!-~]{1,256}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Unproven(Exception):
    """It attests nothing; the text says why, in words for the report."""


@dataclass(frozen=True)
class Attested:
    """`keys` (fingerprints) say what `predicate` names of each of `subjects` (SHA-256)."""

    keys: frozenset[str]
    predicate: str
    subjects: frozenset[str]


def read(data: bytes, media_type: str, keys: Sequence[Key]) -> Attested:
    """What `keys` attest in a layer of one of KINDS. Raises Unproven.

    One signature by one of the keys suffices (DSSE, multi-signature verification with t = 1). The
    payload is looked at only once a signature over exactly its bytes holds.
    """
    try:
        envelope = _envelope(strictjson.decode(data), media_type)
    except strictjson.Malformed as e:
        raise Unproven(f"it is no signed envelope: {e}") from e
    by = signers(keys, envelope.signatures, envelope.message())
    if not by:
        raise Unproven(f"none of the {len(keys)} keys that the policy names signed it")
    if envelope.kind != _IN_TOTO:
        raise Unproven(f"it was signed as {shown(envelope.kind)}, not as an in-toto statement")
    try:
        return _statement(strictjson.decode(envelope.payload), by)
    except strictjson.Malformed as e:
        raise Unproven(f"what was signed is no in-toto statement: {e}") from e


def _envelope(document: Any, media_type: str) -> dsse.Envelope:
    if media_type == DSSE_ENVELOPE:
        return dsse.read(document)
    if not isinstance(document, dict) or "dsseEnvelope" not in document:
        raise strictjson.Malformed("the bundle holds no DSSE envelope")
    envelope = dsse.read(document["dsseEnvelope"])
    if len(envelope.signatures) != 1:
        # sigstore_bundle.proto: exactly one, because a bundle brings the material of one signer.
        raise strictjson.Malformed(f"the bundle has {len(envelope.signatures)} signatures, not one")
    return envelope


def _statement(document: Any, by: frozenset[str]) -> Attested:
    """In-toto Statement v0.1 or v1, whose subjects are matched by digest alone."""
    if not isinstance(document, dict) or document.get("_type") not in _STATEMENTS:
        raise strictjson.Malformed("its _type is not that of a statement v0.1 or v1")
    predicate = document.get("predicateType")
    if not isinstance(predicate, str) or not _PREDICATE.fullmatch(predicate):
        raise strictjson.Malformed("its predicateType is no URI")
    subjects = document.get("subject")
    if not isinstance(subjects, list) or not subjects:
        raise strictjson.Malformed("it names no subject")
    return Attested(by, predicate, frozenset(d for s in subjects for d in _sha256(s)))


def _sha256(subject: Any) -> tuple[str, ...]:
    """None for a subject that other algorithms name: it may be anything, and is not the image."""
    digest = subject.get("digest") if isinstance(subject, dict) else None
    if not isinstance(digest, dict):
        raise strictjson.Malformed("a subject has no digest")
    value = digest.get("sha256")
    return (value,) if isinstance(value, str) and _SHA256.fullmatch(value) else ()
