"""The keys whose word about images counts: the policy's, and how each checks a signature."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from airgap.errors import UsageError


@dataclass(frozen=True)
class Key:
    """A public key of the policy; `fingerprint` is the SHA-256 of its SubjectPublicKeyInfo."""

    fingerprint: str
    verify: Callable[[bytes, bytes], bool]


def load_keys(pems: Sequence[str]) -> tuple[Key, ...]:
    """The policy's keys. Raises UsageError `policy.image-key` for one that is none."""
    return tuple(_load(p) for p in pems)


def signers(keys: Iterable[Key], signatures: Iterable[bytes], message: bytes) -> frozenset[str]:
    """Fingerprints of the keys that made one of `signatures` over exactly `message`."""
    made = tuple(signatures)
    return frozenset(k.fingerprint for k in keys if any(k.verify(s, message) for s in made))


def _load(pem: str) -> Key:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

    if "-----BEGIN PUBLIC KEY-----" not in pem:
        # Hosts know a key by the SHA-256 of what this form holds.
        raise _no_key("it is in another form")
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


def _no_key(why: str) -> UsageError:
    return UsageError(
        "policy.image-key",
        "a key in the policy's image-keys cannot be used",
        why=why[:200],
        do="give a PEM public key (BEGIN PUBLIC KEY) such as `cosign public-key` prints",
    )
