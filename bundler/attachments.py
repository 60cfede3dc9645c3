"""Media types of what lies beside an image in a registry, for those who fetch and who read it."""

from __future__ import annotations

# `cosign sign` until version 2, and everything of version 3.
SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
SIGNATURES = (SIMPLE_SIGNING, SIGSTORE_BUNDLE)
# `cosign attest` until version 2; a statement without an envelope, which nobody signed.
DSSE_ENVELOPE = "application/vnd.dsse.envelope.v1+json"
STATEMENT = "application/vnd.in-toto+json"
# Bills of materials that stand by themselves (`cosign attach sbom`, `oras attach`).
SBOMS = (
    "application/vnd.cyclonedx+json",
    "application/spdx+json",
    "text/spdx+json",
    "text/spdx",
)
# Notation's signatures are carried for others to check.
CARRIED = (*SIGNATURES, *SBOMS, DSSE_ENVELOPE, STATEMENT, "application/jose+json")
