"""cosign's signatures: found beside an image, carried along, and believed only for its digest."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath

import pytest

from airgap.errors import SealiftError, UsageError
from airgap.events import Event, Line
from airgap.format import oci
from airgap.format.request import ImageRequest
from bundler.fetch import images
from bundler.scan import gate
from bundler.workspace import Workspace
from tests.unit.images.faulty import Faulty, answer
from tests.unit.images.maker import Made, encode, push, tar_of
from tests.unit.images.signed import (
    KEY,
    SIGNED,
    STRANGER,
    b64,
    bundle,
    listing,
    look,
    pem,
    problems,
    pull,
    sign,
)

TAR = tar_of({"hello": b"hello" * 999})


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
        noted["dev.cosignproject.cosign/signature"] = b64(b"0" * 70)
    if wrong == "no base64":
        noted["dev.cosignproject.cosign/signature"] = "!!!"
    faulty.made.manifest(document, f"sha256-{own}.sig")
    image = pull(workspace, faulty.host)
    found, coverage = look(workspace, image, pem(KEY))
    assert problems(workspace, image, found, coverage, pem(KEY)) == ["policy.image-unsigned"]


@pytest.mark.parametrize("by", ["api", "tag", "second page"])
@pytest.mark.parametrize(
    ("predicate", "believed"),
    [(SIGNED, True), ("https://cosign.sigstore.dev/attest", False)],
)
def test_sigstore_bundle_is_found_and_only_a_signature_is_one(
    workspace: Workspace, faulty: Faulty, by: str, predicate: str, believed: bool
) -> None:
    made = faulty.made
    own = made.image(TAR, tag="1")
    attached = made.manifest(bundle(made, own, predicate))
    if by == "tag":
        made.manifest(listing(made, attached), f"sha256-{own}")
    else:
        faulty.referrers[own] = encode(listing(made, attached))
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
    made.manifest(bundle(made, other, SIGNED), f"sha256-{own}.att")
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
