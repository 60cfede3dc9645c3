"""Who signed an artifact in cosign's simple form: the payload itself is signed and names a digest.

Checked by `cryptography` alone, against keys that the policy names. Sigstore bundles, cosign's
newer form, are statements: see `attestations`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

from bundler.scan import strictjson
from bundler.scan.image_keys import Key, signers

# The layer's annotation that holds the signature over the layer's bytes.
SIGNATURE = "dev.cosignproject.cosign/signature"
# What `cosign sign` states in a bundle. Other statements (a failed scan, say) approve nothing.
SIGNED = "https://sigstore.dev/cosign/sign/v1"


def read(payload: bytes, signature: str, keys: Sequence[Key]) -> tuple[str, frozenset[str]]:
    """(SHA-256 of what the payload names, fingerprints of the keys that signed the payload).

    What is not well-formed names "" and is signed by nobody.
    """
    try:
        by = signers(keys, [base64.b64decode(signature, validate=True)], payload)
        if not by:
            return "", by
        named = strictjson.decode(payload)["critical"]["image"]["docker-manifest-digest"]
    except (strictjson.Malformed, binascii.Error, ValueError, KeyError, TypeError):
        return "", frozenset()
    kind, _, digest = str(named).partition(":")
    return (digest, by) if kind == "sha256" else ("", frozenset())
