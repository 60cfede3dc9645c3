"""Who signed an image: cosign's keyed signatures, in its simple form and as Sigstore bundles.

Checked by `cryptography` alone, against keys that the policy names. A signature counts only when
what is signed names the image's own digest, or that of the index that names the image.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airgap.errors import UsageError
from airgap.format import oci
from bundler.scan import strictjson

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
KINDS = (SIMPLE_SIGNING, SIGSTORE_BUNDLE)
_SIGNATURE = "dev.cosignproject.cosign/signature"
_IN_TOTO = "application/vnd.in-toto+json"
# What `cosign sign` states; other statements (a failed scan, say) are no approval of the image.
_SIGNED = "https://sigstore.dev/cosign/sign/v1"


@dataclass(frozen=True)
class Key:
    """A public key of the policy; `fingerprint` is the SHA-256 of its SubjectPublicKeyInfo."""

    fingerprint: str
    verify: Callable[[bytes, bytes], bool]


def load_keys(pems: Sequence[str]) -> tuple[Key, ...]:
    """The policy's keys. Raises UsageError `policy.image-key` for one that is none."""
    return tuple(_load(p) for p in pems)


def _load(pem: str) -> Key:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    try:
        key = serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm) as e:
        raise _no_key(str(e)) from e
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    if not isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey):
        raise _no_key("it is of a kind that cosign does not sign with")

    def verify(signature: bytes, message: bytes) -> bool:
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            elif isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, message)
            else:
                key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    return Key(hashlib.sha256(spki).hexdigest(), verify)


def signers(
    manifest: oci.Manifest,
    blobs: Mapping[str, bytes],
    subjects: Sequence[str],
    keys: Sequence[Key],
) -> Iterator[str]:
    """Fingerprints of the keys that signed one of `subjects` (SHA-256) in this signature artifact.

    `blobs` has its layers by SHA-256. What is not well-formed signs nothing.
    """
    for number, layer in enumerate(manifest.layers):
        if layer.sha256 not in blobs:
            continue
        if layer.media_type == SIMPLE_SIGNING:
            signature = manifest.layer_annotation(number, _SIGNATURE) or ""
            claim = _simple(blobs[layer.sha256], signature)
        elif layer.media_type == SIGSTORE_BUNDLE:
            claim = _bundle(blobs[layer.sha256])
        else:
            claim = None
        if claim is not None and claim.subjects & set(subjects):
            yield from (k.fingerprint for k in keys if k.verify(claim.signature, claim.message))


@dataclass(frozen=True)
class _Claim:
    """What was signed, by which signature, about which digests."""

    message: bytes
    signature: bytes
    subjects: frozenset[str]


def _simple(payload: bytes, signature: str) -> _Claim | None:
    """cosign's signature format: the payload itself is signed."""
    try:
        image = strictjson.decode(payload)["critical"]["image"]["docker-manifest-digest"]
        raw = base64.b64decode(signature, validate=True)
    except (strictjson.Malformed, binascii.Error, ValueError, KeyError, TypeError):
        return None
    return _Claim(payload, raw, frozenset([_hex(image)]))


def _bundle(data: bytes) -> _Claim | None:
    """A Sigstore bundle with a DSSE envelope around an in-toto statement."""
    try:
        envelope = strictjson.decode(data)["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        kind = str(envelope["payloadType"])
        (one,) = envelope["signatures"]
        raw = base64.b64decode(one["sig"], validate=True)
        statement = strictjson.decode(payload)
        subjects = frozenset(_subject(s) for s in statement["subject"])
    except (strictjson.Malformed, binascii.Error, ValueError, KeyError, TypeError):
        return None
    if kind != _IN_TOTO or statement.get("predicateType") != _SIGNED:
        return None
    head = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode()
    return _Claim(head + payload, raw, subjects)


def _subject(value: Mapping[str, Any]) -> str:
    return _hex(f"sha256:{value['digest']['sha256']}")


def _hex(digest: Any) -> str:
    kind, _, text = str(digest).partition(":")
    return text if kind == "sha256" else ""


def _no_key(why: str) -> UsageError:
    return UsageError(
        "policy.image-key",
        "a key in the policy's image-keys cannot be used",
        why=why[:200],
        do="give a PEM public key (BEGIN PUBLIC KEY) such as `cosign public-key` prints",
    )
