"""What cosign puts beside an image, by keys of the tests' own, to bend where one wants."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from airgap.events import silent
from airgap.format import oci
from airgap.format.artifacts import Image, LockedImage
from airgap.format.evidence import Coverage, Findings
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.request import ImageRequest
from airgap.format.types import FileEntry
from airgap.policy import Problem, judge_evidence
from bundler.fetch import download, images
from bundler.scan import gate
from bundler.workspace import Workspace
from tests.lab import T0, Lab
from tests.unit.images.maker import Made, encode

SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
DSSE = "application/vnd.dsse.envelope.v1+json"
IN_TOTO = "application/vnd.in-toto+json"
CYCLONEDX = "application/vnd.cyclonedx+json"
EMPTY = "application/vnd.oci.empty.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
SIGNED = "https://sigstore.dev/cosign/sign/v1"
SLSA = "https://slsa.dev/provenance/v1"
BOM = "https://cyclonedx.org/bom"
V01 = "https://in-toto.io/Statement/v0.1"
V1 = "https://in-toto.io/Statement/v1"

Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())


def pem(key: Private) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def made_by(key: Private, message: bytes) -> bytes:
    """A signature as cosign makes it with a key of that kind."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    return key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def simple(digest: str) -> bytes:
    """The payload of `cosign sign`, before Sigstore bundles."""
    return encode(
        {
            "critical": {
                "identity": {"docker-reference": "registry.example/team/app"},
                "image": {"docker-manifest-digest": f"sha256:{digest}"},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )


def sign(made: Made, digest: str, key: Private = KEY) -> dict[str, Any]:
    """A manifest as `cosign sign --key` writes it under the tag sha256-HEX.sig."""
    payload = simple(digest)
    noted = {"dev.cosignproject.cosign/signature": b64(made_by(key, payload))}
    return beside(made, made.descriptor(SIMPLE, payload, annotations=noted))


def statement(digest: str, predicate: str, **more: Any) -> bytes:
    """An in-toto statement about a manifest."""
    return encode(
        {
            "_type": V1,
            "subject": [{"name": "registry.example/team/app", "digest": {"sha256": digest}}],
            "predicateType": predicate,
            "predicate": {"buildDefinition": {}},
            **more,
        }
    )


def pae(payload: bytes, kind: str = IN_TOTO) -> bytes:
    """DSSE's pre-authentication encoding, written once more: two have to agree."""
    parts = [b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload]
    return b" ".join(parts)


def envelope(payload: bytes, *keys: Private, kind: str = IN_TOTO) -> dict[str, Any]:
    """A DSSE envelope, signed by each of `keys` in turn (KEY where none is named)."""
    signatures = [{"keyid": "", "sig": b64(made_by(k, pae(payload, kind)))} for k in keys or (KEY,)]
    return {"payloadType": kind, "payload": b64(payload), "signatures": signatures}


def attest(made: Made, *envelopes: dict[str, Any], label: str | None = None) -> dict[str, Any]:
    """A manifest as `cosign attest --key` writes it under the tag sha256-HEX.att."""
    noted = {"dev.cosignproject.cosign/signature": "", "predicateType": label or SLSA}
    return beside(made, *(made.descriptor(DSSE, encode(e), annotations=noted) for e in envelopes))


def bundle(
    made: Made, digest: str, predicate: str, *keys: Private, about: str | None = None
) -> dict[str, Any]:
    """A manifest as cosign 3 attaches it to `digest`: a Sigstore bundle that speaks about it, or
    about another digest."""
    document = {
        "mediaType": BUNDLE,
        "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": []},
        "dsseEnvelope": envelope(statement(about or digest, predicate), *keys),
    }
    return {
        **beside(made, made.descriptor(BUNDLE, encode(document)), config=EMPTY),
        "artifactType": BUNDLE,
        "subject": subject(made, digest),
    }


def sbom(made: Made, *, names: str | None = None) -> dict[str, Any]:
    """A manifest as `cosign attach sbom` writes it under the tag sha256-HEX.sbom, or, with
    `names`, as a referrer of that manifest."""
    document = encode({"bomFormat": "CycloneDX", "specVersion": "1.6", "components": []})
    out = beside(made, made.descriptor(CYCLONEDX, document))
    return {**out, "subject": subject(made, names)} if names else out


def subject(made: Made, digest: str) -> dict[str, Any]:
    kind, data = made.manifests[f"sha256:{digest}"]
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}


def beside(made: Made, *layers: dict[str, Any], config: str = OCI_CONFIG) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": made.descriptor(config, b"{}"),
        "layers": list(layers),
    }


def listing(made: Made, *digests: str) -> dict[str, Any]:
    """What the referrers API answers, and what the fallback tag holds."""
    entries = [subject(made, d) for d in digests]
    return {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": entries}


def pull(workspace: Workspace, host: str) -> LockedImage:
    request = ImageRequest(reference=f"{host}/team/app:1", platform="linux/amd64")
    image = images.lock_image(request, workspace.store, silent)
    download.fetch(images.image_items(image), workspace.store, silent)
    return image


def look(workspace: Workspace, image: LockedImage, *keys: str) -> tuple[Findings, Coverage]:
    store = workspace.store
    files = (
        gate.ScanFile(f.path, f.sha256, f.size, store.blob_path(f.sha256)) for f in image.files
    )
    return gate.scan([gate.ScanArtifact("image", "image", tuple(files))], image_keys=keys)


def judge(
    workspace: Workspace, image: LockedImage, evidence: tuple[Findings, Coverage], policy: Policy
) -> list[Problem]:
    """What a host with that policy says of the evidence, as it travels."""
    files = tuple(
        FileEntry(path=f.path, sha256=f.sha256, blake3=f.sha256, size=f.size) for f in image.files
    )
    one = Image(
        name="image",
        reference=image.reference,
        platform=image.platform,
        digest=image.digest,
        media_type=image.media_type,
        files=files,
    )
    manifest = Manifest.from_bytes(Lab(workspace.home / "lab").manifest()[0])
    manifest = replace(manifest, artifacts=(one,))
    findings = Findings.from_bytes(evidence[0].to_bytes())
    return list(judge_evidence(policy, manifest, findings, evidence[1], T0))


def problems(
    workspace: Workspace, image: LockedImage, found: Findings, coverage: Coverage, *keys: str
) -> list[str]:
    """What a host with these keys in its policy says."""
    policy = Policy(image_keys=keys)
    return [p.id for p in judge(workspace, image, (found, coverage), policy)]
