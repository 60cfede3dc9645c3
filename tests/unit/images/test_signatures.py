"""cosign's signatures: found beside an image, carried along, and believed only for its digest."""

from __future__ import annotations

import base64
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from airgap.errors import SealiftError, UsageError
from airgap.events import Event, Line, silent
from airgap.format import oci
from airgap.format.artifacts import Image, LockedImage
from airgap.format.evidence import Coverage, Findings
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.request import ImageRequest
from airgap.format.types import FileEntry
from airgap.policy import judge_evidence
from bundler.fetch import download, images
from bundler.scan import gate
from bundler.workspace import Workspace
from tests.lab import T0, Lab
from tests.unit.images.faulty import Faulty, answer
from tests.unit.images.maker import Made, encode, push, tar_of

TAR = tar_of({"hello": b"hello" * 999})
SIMPLE = "application/vnd.dev.cosign.simplesigning.v1+json"
BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
IN_TOTO = "application/vnd.in-toto+json"
EMPTY = "application/vnd.oci.empty.v1+json"
KEY = ec.generate_private_key(ec.SECP256R1())
STRANGER = ec.generate_private_key(ec.SECP256R1())


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def sign(made: Made, digest: str, key: ec.EllipticCurvePrivateKey = KEY) -> dict[str, Any]:
    """A manifest as `cosign sign --key` writes it under the tag sha256-HEX.sig."""
    payload = encode(
        {
            "critical": {
                "identity": {"docker-reference": "registry.example/team/app"},
                "image": {"docker-manifest-digest": f"sha256:{digest}"},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    )
    signature = base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()
    noted = {"dev.cosignproject.cosign/signature": signature}
    return {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "config": made.descriptor("application/vnd.oci.image.config.v1+json", b"{}"),
        "layers": [made.descriptor(SIMPLE, payload, annotations=noted)],
    }


def bundle(made: Made, digest: str, predicate: str) -> dict[str, Any]:
    """A manifest as cosign 3 attaches it: a Sigstore bundle that speaks about `digest`."""
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "", "digest": {"sha256": digest}}],
        "predicateType": predicate,
        "predicate": {},
    }
    payload = encode(statement)
    message = f"DSSEv1 {len(IN_TOTO)} {IN_TOTO} {len(payload)} ".encode() + payload
    signature = KEY.sign(message, ec.ECDSA(hashes.SHA256()))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": IN_TOTO,
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    kind, data = made.manifests[f"sha256:{digest}"]
    return {
        "schemaVersion": 2,
        "mediaType": oci.OCI_MANIFEST,
        "artifactType": BUNDLE,
        "config": made.descriptor(EMPTY, b"{}"),
        "layers": [made.descriptor(BUNDLE, encode({"dsseEnvelope": envelope}))],
        "subject": {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)},
    }


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


def problems(
    workspace: Workspace, image: LockedImage, found: Findings, coverage: Coverage, *keys: str
) -> list[str]:
    """What a host with these keys in its policy says."""
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
    policy = Policy(image_keys=keys)
    return [p.id for p in judge_evidence(policy, manifest, found, coverage, T0)]


def test_cosign_tag_of_a_real_registry_is_carried_and_believed(
    workspace: Workspace, docker_registry: str
) -> None:
    made = Made()
    own = made.image(TAR)
    top = made.index({"linux/amd64": own}, tag="1")
    made.manifest(sign(made, top), f"sha256-{top}.sig")
    push(made, docker_registry, "team/app")
    image = pull(workspace, docker_registry.removeprefix("http://"))
    carried = [str(f.path) for f in image.files if f.path.parts[0] == "referrers"]
    assert [p.split("/", 2)[2] for p in carried] == ["config.json", "layers/000", "manifest.json"]
    found, coverage = look(workspace, image, pem(STRANGER), pem(KEY))
    assert {c.verdict for c in coverage.files} == {"covered"}
    assert [f.severity for f in found.findings if f.id == "image.signed"] == ["info"]
    assert problems(workspace, image, found, coverage, pem(KEY)) == []
    assert problems(workspace, image, found, coverage) == []
    # A host judges by its own keys, from the same evidence.
    assert problems(workspace, image, found, coverage, pem(STRANGER)) == ["policy.image-unsigned"]


def test_unsigned_image_is_refused_where_the_policy_names_keys(
    workspace: Workspace, faulty: Faulty
) -> None:
    faulty.made.image(TAR, tag="1")
    image = pull(workspace, faulty.host)
    found, coverage = look(workspace, image, pem(KEY))
    assert problems(workspace, image, found, coverage, pem(KEY)) == ["policy.image-unsigned"]


@pytest.mark.parametrize("wrong", ["key", "digest", "bytes", "no base64"])
def test_signature_that_does_not_hold_counts_for_nothing(
    workspace: Workspace, faulty: Faulty, wrong: str
) -> None:
    own = faulty.made.image(TAR, tag="1")
    about = "f" * 64 if wrong == "digest" else own
    document = sign(faulty.made, about, STRANGER if wrong == "key" else KEY)
    noted = document["layers"][0]["annotations"]
    if wrong == "bytes":
        noted["dev.cosignproject.cosign/signature"] = base64.b64encode(b"0" * 70).decode()
    if wrong == "no base64":
        noted["dev.cosignproject.cosign/signature"] = "!!!"
    faulty.made.manifest(document, f"sha256-{own}.sig")
    image = pull(workspace, faulty.host)
    found, coverage = look(workspace, image, pem(KEY))
    assert problems(workspace, image, found, coverage, pem(KEY)) == ["policy.image-unsigned"]


@pytest.mark.parametrize("by", ["api", "tag", "second page"])
@pytest.mark.parametrize(
    ("predicate", "believed"),
    [("https://sigstore.dev/cosign/sign/v1", True), ("https://cosign.sigstore.dev/attest", False)],
)
def test_sigstore_bundle_is_found_and_only_a_signature_is_one(
    workspace: Workspace, faulty: Faulty, by: str, predicate: str, believed: bool
) -> None:
    made = faulty.made
    own = made.image(TAR, tag="1")
    attached = made.manifest(bundle(made, own, predicate))
    kind, data = made.manifests[f"sha256:{attached}"]
    entry = {"mediaType": kind, "digest": f"sha256:{attached}", "size": len(data)}
    listing = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": [entry]}
    if by == "tag":
        made.manifest(listing, f"sha256-{own}")
    else:
        faulty.referrers[own] = encode(listing)
    if by == "second page":
        faulty.faults[f"/referrers/sha256:{own}"] = [first_page]
    image = pull(workspace, faulty.host)
    found, coverage = look(workspace, image, pem(KEY))
    assert {c.verdict for c in coverage.files} == {"covered"}
    expected = [] if believed else ["policy.image-unsigned"]
    assert problems(workspace, image, found, coverage, pem(KEY)) == expected


def first_page(handler: BaseHTTPRequestHandler, _data: bytes) -> bool:
    """Nothing yet, and where to go on (distribution specification 1.1, listing referrers)."""
    empty = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": []}
    headers = {"Content-Type": oci.OCI_INDEX, "Link": f'<{handler.path}?last=x>; rel="next"'}
    answer(handler, 200, encode(empty), headers)
    return True


def test_attachment_about_another_image_is_refused(workspace: Workspace, faulty: Faulty) -> None:
    made = faulty.made
    own = made.image(TAR, tag="1")
    other = made.image(tar_of({"x": b"y"}))
    made.manifest(bundle(made, other, "https://sigstore.dev/cosign/sign/v1"), f"sha256-{own}.att")
    with pytest.raises(SealiftError) as e:
        pull(workspace, faulty.host)
    assert (e.value.id, e.value.exit_code) == ("source.image", 3)


def test_what_is_no_signature_is_left_out_and_said(workspace: Workspace, faulty: Faulty) -> None:
    made = faulty.made
    own = made.image(TAR, tag="1")
    document = sign(made, own)
    document["layers"] = [made.descriptor("application/vnd.example.model", b"something")]
    made.manifest(document, f"sha256-{own}.att")
    events: list[Event] = []
    request = ImageRequest(reference=f"{faulty.host}/team/app:1", platform="linux/amd64")
    image = images.lock_image(request, workspace.store, events.append)
    assert not [f for f in image.files if f.path.is_relative_to(PurePosixPath("referrers"))]
    assert any(isinstance(e, Line) and e.label == "leave out" for e in events)


def test_policy_key_that_is_none_is_said() -> None:
    with pytest.raises(UsageError) as e:
        gate.scan([], image_keys=["no key"])
    assert (e.value.id, e.value.exit_code) == ("policy.image-key", 2)
