"""From the registry to the host's judgement: attestations and SBOMs that lie beside an image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airgap.errors import FormatError, SealiftError
from airgap.events import Event, Line, silent
from airgap.format.artifacts import LockedImage
from airgap.format.evidence import Finding, Findings
from airgap.format.policy import Policy
from airgap.format.request import ImageRequest
from bundler.fetch import download, images
from bundler.fetch.oci import referrers
from bundler.scan.image_keys import load_keys
from bundler.workspace import Workspace
from tests.unit.images.faulty import Faulty
from tests.unit.images.maker import Made, encode, push, sha, tar_of
from tests.unit.images.signed import (
    BOM,
    BUNDLE,
    DSSE,
    IN_TOTO,
    KEY,
    SIGNED,
    SLSA,
    STRANGER,
    attest,
    beside,
    bundle,
    envelope,
    judge,
    listing,
    look,
    pem,
    problems,
    pull,
    sbom,
    sign,
    statement,
)

TAR = tar_of({"hello": b"hello" * 999})
UNATTESTED = "policy.image-unattested"


def fingerprint(*keys: Any) -> tuple[str, ...]:
    return tuple(sorted(k.fingerprint for k in load_keys([pem(k) for k in keys])))


def asks(*predicates: str, key: Any = KEY, severity: str = "medium") -> Policy:
    return Policy(image_keys=(pem(key),), image_attestations=predicates, fail_severity=severity)


def of(found: Findings, id: str) -> list[Finding]:
    return [f for f in found.findings if f.id == id]


def signed_image(made: Made) -> str:
    """An image that KEY signed, so that only what is attested is in question."""
    own = made.image(TAR, tag="1")
    made.manifest(sign(made, own), f"sha256-{own}.sig")
    return own


def pulled(
    workspace: Workspace, faulty: Faulty, *keys: Any
) -> tuple[LockedImage, Findings, list[str]]:
    """The image, what the gate finds with `keys` (KEY), and ids of what lies beside it."""
    image = pull(workspace, faulty.host)
    found, coverage = look(workspace, image, *(pem(k) for k in keys or (KEY,)))
    assert {c.verdict for c in coverage.files} == {"covered"}
    ids = [f.id for f in found.findings if f.id not in ("image.runs", "image.signed")]
    return image, found, ids


def test_attestations_of_a_real_registry_are_verified_and_judged_on_both_sides(
    workspace: Workspace, docker_registry: str
) -> None:
    """One of the index and one of the manifest, under cosign's tags; the fallback tag has a third:
    Debian's registry has no referrers API."""
    made = Made()
    own = made.image(TAR)
    top = made.index({"linux/amd64": own}, tag="1")
    made.manifest(sign(made, top), f"sha256-{top}.sig")
    of_top = attest(made, envelope(statement(top, SLSA), STRANGER, KEY))
    of_own = attest(made, envelope(statement(own, BOM)), label=BOM)
    made.manifest(of_top, f"sha256-{top}.att")
    made.manifest(of_own, f"sha256-{own}.att")
    third = made.manifest(bundle(made, own, SLSA, STRANGER))
    made.manifest(listing(made, third), f"sha256-{own}")
    push(made, docker_registry, "team/attested")
    request = ImageRequest(
        reference=f"{docker_registry.removeprefix('http://')}/team/attested:1",
        platform="linux/amd64",
    )
    image = images.lock_image(request, workspace.store, silent)
    download.fetch(images.image_items(image), workspace.store, silent)
    evidence = look(workspace, image, pem(KEY), pem(STRANGER))
    attested = {f.predicate: f.details for f in of(evidence[0], "image.attested")}
    assert attested == {SLSA: fingerprint(KEY, STRANGER), BOM: fingerprint(KEY)}
    assert {f.sha256 for f in of(evidence[0], "image.attested")} == {own}
    for key, predicates, expected in (
        (KEY, (SLSA, BOM), []),
        (KEY, ("https://spdx.dev/Document",), [UNATTESTED]),
        (STRANGER, (SLSA,), ["policy.image-unsigned"]),
        (STRANGER, (SLSA, BOM), ["policy.image-unsigned", UNATTESTED]),
    ):
        said = judge(workspace, image, evidence, asks(*predicates, key=key))
        assert [p.id for p in said] == expected


@pytest.mark.parametrize("by", ["api", "fallback tag", "att tag"])
def test_bundle_is_an_attestation_wherever_it_is_found(
    workspace: Workspace, faulty: Faulty, by: str
) -> None:
    made = faulty.made
    own = signed_image(made)
    document = bundle(made, own, SLSA)
    attached = made.manifest(document, f"sha256-{own}.att" if by == "att tag" else None)
    if by == "fallback tag":
        made.manifest(listing(made, attached), f"sha256-{own}")
    if by == "api":
        faulty.referrers[own] = encode(listing(made, attached))
    image, found, ids = pulled(workspace, faulty)
    assert ids == ["image.attested"]
    place = f"referrers/{attached}/layers/000"
    assert place in of(found, "image.attested")[0].message
    evidence = look(workspace, image, pem(KEY))
    assert judge(workspace, image, evidence, asks(SLSA)) == []


def test_attestation_is_no_signature_and_a_signature_no_other_attestation(
    workspace: Workspace, faulty: Faulty
) -> None:
    made = faulty.made
    own = made.image(TAR, tag="1")
    faulty.referrers[own] = encode(listing(made, made.manifest(bundle(made, own, SLSA))))
    image = pull(workspace, faulty.host)
    evidence = look(workspace, image, pem(KEY))
    assert problems(workspace, image, *evidence, pem(KEY)) == ["policy.image-unsigned"]
    faulty.referrers[own] = encode(listing(made, made.manifest(bundle(made, own, SIGNED))))
    image = pull(workspace, faulty.host)
    evidence = look(workspace, image, pem(KEY))
    assert [p.id for p in judge(workspace, image, evidence, asks(SLSA))] == [UNATTESTED]


def wrong_key(_made: Made, own: str) -> dict[str, Any]:
    return envelope(statement(own, SLSA), STRANGER)


def another_image(made: Made, _own: str) -> dict[str, Any]:
    return envelope(statement(made.image(tar_of({"x": b"y"})), SLSA))


def altered(_made: Made, own: str) -> dict[str, Any]:
    signed = envelope(statement("f" * 64, SLSA))
    return {**signed, "payload": envelope(statement(own, SLSA))["payload"]}


def no_statement(_made: Made, own: str) -> dict[str, Any]:
    return envelope(statement(own, SLSA, _type="https://example.org/v1"))


def several_none_ours(_made: Made, own: str) -> dict[str, Any]:
    return envelope(statement(own, SLSA), STRANGER, STRANGER)


def by_its_configuration(made: Made, own: str) -> dict[str, Any]:
    """The digest of one of the image's blobs is not the image's."""
    config = sha(made.blobs[sha(b"{}")])
    assert config != own
    return envelope(statement(config, SLSA))


@pytest.mark.parametrize(
    "make",
    [wrong_key, another_image, altered, no_statement, several_none_ours, by_its_configuration],
)
def test_attestation_that_does_not_hold_is_told_and_counts_for_nothing(
    workspace: Workspace, faulty: Faulty, make: Any
) -> None:
    own = signed_image(faulty.made)
    attached = faulty.made.manifest(
        attest(faulty.made, make(faulty.made, own)), f"sha256-{own}.att"
    )
    image, found, ids = pulled(workspace, faulty)
    assert ids == ["image.attestation-unproven"]
    (told,) = of(found, "image.attestation-unproven")
    assert (told.severity, str(told.path)) == ("low", f"referrers/{attached}/layers/000")
    assert f"it calls itself '{SLSA}'" in told.message
    evidence = look(workspace, image, pem(KEY))
    # A bundle that needs no attestation is not refused for it; one that does is.
    assert problems(workspace, image, *evidence, pem(KEY)) == []
    assert [p.id for p in judge(workspace, image, evidence, asks(SLSA))] == [UNATTESTED]
    strict = asks(SLSA, severity="low")
    assert [p.id for p in judge(workspace, image, evidence, strict)] == [
        "policy.finding",
        UNATTESTED,
    ]


def test_one_layer_that_holds_counts_beside_one_that_does_not(
    workspace: Workspace, faulty: Faulty
) -> None:
    own = signed_image(faulty.made)
    layers = [envelope(statement(own, SLSA), STRANGER), envelope(statement(own, SLSA))]
    attached = faulty.made.manifest(attest(faulty.made, *layers), f"sha256-{own}.att")
    _, found, ids = pulled(workspace, faulty)
    assert sorted(ids) == ["image.attestation-unproven", "image.attested"]
    assert f"{attached}/layers/001" in of(found, "image.attested")[0].message


def test_what_is_signed_counts_and_not_what_it_is_labelled(
    workspace: Workspace, faulty: Faulty
) -> None:
    own = signed_image(faulty.made)
    document = attest(faulty.made, envelope(statement(own, BOM)), label=SLSA)
    faulty.made.manifest(document, f"sha256-{own}.att")
    image, found, ids = pulled(workspace, faulty)
    assert sorted(ids) == ["image.attestation-label", "image.attested"]
    assert SLSA in of(found, "image.attestation-label")[0].message
    evidence = look(workspace, image, pem(KEY))
    assert judge(workspace, image, evidence, asks(BOM)) == []
    assert [p.id for p in judge(workspace, image, evidence, asks(SLSA))] == [UNATTESTED]


def test_statement_that_nobody_signed_attests_nothing(workspace: Workspace, faulty: Faulty) -> None:
    made = faulty.made
    own = signed_image(made)
    layer = made.descriptor(IN_TOTO, statement(own, SLSA))
    made.manifest(beside(made, layer), f"sha256-{own}.att")
    _, found, ids = pulled(workspace, faulty)
    assert ids == ["image.attestation-unproven"]
    assert "nobody signed" in of(found, "image.attestation-unproven")[0].message


def test_without_keys_nothing_is_said_of_what_lies_beside(
    workspace: Workspace, faulty: Faulty
) -> None:
    made = faulty.made
    own = signed_image(made)
    made.manifest(attest(made, envelope(statement(own, SLSA))), f"sha256-{own}.att")
    made.manifest(sbom(made), f"sha256-{own}.sbom")
    found, coverage = look(workspace, pull(workspace, faulty.host))
    assert {c.verdict for c in coverage.files} == {"covered"}
    assert {f.id for f in found.findings} == {"image.runs"}


def test_evidence_by_another_name_or_of_another_image_is_not_believed(
    workspace: Workspace, faulty: Faulty
) -> None:
    own = signed_image(faulty.made)
    faulty.made.manifest(attest(faulty.made, envelope(statement(own, SLSA))), f"sha256-{own}.att")
    image, found, _ = pulled(workspace, faulty)
    coverage = look(workspace, image, pem(KEY))[1]
    (told,) = of(found, "image.attested")
    changes: tuple[dict[str, Any], ...] = (
        {"sha256": "f" * 64},
        {"artifact": "other"},
        {"id": "image.signed"},
        {"details": ()},
        {"details": fingerprint(STRANGER)},
        {"predicate": None},
        {"predicate": SLSA + "/"},
    )
    rest = tuple(f for f in found.findings if f != told)
    for bent in (told, *(replace(told, **change) for change in changes)):
        evidence = (replace(found, findings=(*rest, bent)), coverage)
        expected = [] if bent == told else [UNATTESTED]
        assert [p.id for p in judge(workspace, image, evidence, asks(SLSA))] == expected


def test_policy_that_asks_for_attestations_by_nobody_is_none() -> None:
    with pytest.raises(FormatError) as e:
        Policy(image_attestations=(SLSA,))
    assert (e.value.id, e.value.where) == ("format.value", "image-attestations")
    with pytest.raises(FormatError) as e:
        Policy(image_attestations=(), image_keys=(pem(KEY),))
    assert "leave the key out" in e.value.why
    with pytest.raises(FormatError):
        Policy(image_attestations=("two words",), image_keys=(pem(KEY),))
    assert b"image-attestations" not in Policy(image_keys=(pem(KEY),)).to_bytes()
    asked = asks(SLSA)
    assert Policy.from_bytes(asked.to_bytes()) == asked


@pytest.mark.parametrize("by", ["sig tag", "referrer", "bundle"])
def test_signed_bill_of_materials_is_told_from_one_that_is_attested(
    workspace: Workspace, faulty: Faulty, by: str
) -> None:
    """A signature of the document does not say whose it is, unless the signed manifest does."""
    made = faulty.made
    own = signed_image(made)
    if by == "referrer":
        bill = made.manifest(sbom(made, names=own))
        faulty.referrers[own] = encode(listing(made, bill))
    else:
        bill = made.manifest(sbom(made), f"sha256-{own}.sbom")
    if by == "bundle":
        attached = made.manifest(bundle(made, bill, SIGNED))
        made.manifest(listing(made, attached), f"sha256-{bill}")
    else:
        made.manifest(sign(made, bill), f"sha256-{bill}.sig")
    image, found, ids = pulled(workspace, faulty)
    assert ids == ["image.sbom-signed"]
    (told,) = of(found, "image.sbom-signed")
    assert (told.severity, told.sha256, told.details) == ("info", bill, fingerprint(KEY))
    whose = "it names this image" if by == "referrer" else "nothing signed says"
    assert whose in told.message
    evidence = look(workspace, image, pem(KEY))
    assert problems(workspace, image, *evidence, pem(KEY)) == []
    assert [p.id for p in judge(workspace, image, evidence, asks(BOM))] == [UNATTESTED]


@pytest.mark.parametrize("fault", ["none", "key", "the image's", "another's", "provenance"])
def test_bill_of_materials_without_a_signature_of_its_own_is_told(
    workspace: Workspace, faulty: Faulty, fault: str
) -> None:
    made = faulty.made
    own = signed_image(made)
    bill = made.manifest(sbom(made), f"sha256-{own}.sbom")
    if fault == "provenance":
        made.manifest(listing(made, made.manifest(bundle(made, bill, SLSA))), f"sha256-{bill}")
    elif fault != "none":
        about = {"key": bill, "the image's": own, "another's": "f" * 64}[fault]
        key = STRANGER if fault == "key" else KEY
        made.manifest(sign(made, about, key), f"sha256-{bill}.sig")
    image, found, ids = pulled(workspace, faulty)
    told = ["image.attestation-unproven"] if fault == "provenance" else []
    # By a stranger, or about something that is not here, it signs nothing.
    nothing = ["image.signature-unproven"] if fault in ("key", "another's") else []
    assert sorted(ids) == [*told, "image.sbom-unsigned", *nothing]
    assert [(f.severity, f.sha256) for f in of(found, "image.sbom-unsigned")] == [("low", bill)]
    evidence = look(workspace, image, pem(KEY))
    assert problems(workspace, image, *evidence, pem(KEY)) == []


def test_signature_of_a_bill_of_materials_is_none_of_the_image(
    workspace: Workspace, faulty: Faulty
) -> None:
    made = faulty.made
    own = made.image(TAR, tag="1")
    bill = made.manifest(sbom(made), f"sha256-{own}.sbom")
    made.manifest(sign(made, bill), f"sha256-{bill}.sig")
    image, _, ids = pulled(workspace, faulty)
    assert ids == ["image.sbom-signed"]
    evidence = look(workspace, image, pem(KEY))
    assert problems(workspace, image, *evidence, pem(KEY)) == ["policy.image-unsigned"]


def test_nothing_is_looked_for_beside_a_signature_of_a_bill_of_materials(
    workspace: Workspace, faulty: Faulty
) -> None:
    """One level deeper and no further; another bill of materials there is left out."""
    made = faulty.made
    own = signed_image(made)
    bill = made.manifest(sbom(made), f"sha256-{own}.sbom")
    deeper = made.manifest(sbom(made, names=bill))
    signature = made.manifest(sign(made, bill), f"sha256-{bill}.sig")
    made.manifest(listing(made, deeper), f"sha256-{bill}")
    events: list[Event] = []
    request = ImageRequest(reference=f"{faulty.host}/team/app:1", platform="linux/amd64")
    image = images.lock_image(request, workspace.store, events.append)
    assert {f.path.parts[1] for f in image.files if f.path.parts[0] == "referrers"} == {
        bill,
        signature,
        *(sha(data) for name, (_, data) in made.manifests.items() if name == f"sha256-{own}.sig"),
    }
    left = [e for e in events if isinstance(e, Line) and e.label == "leave out"]
    assert [e for e in left if deeper[:16] in e.text]
    for digest in (signature, deeper):
        assert not faulty.asked(f"/referrers/sha256:{digest}")
        assert not faulty.asked(f"/manifests/sha256-{digest}")
    assert not faulty.asked(f"/manifests/sha256-{bill}.sbom")


@pytest.mark.parametrize("deep", [False, True], ids=["of the image", "of its bills of materials"])
def test_too_many_referrers_are_refused(
    workspace: Workspace, faulty: Faulty, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrers, "MAX_REFERRERS", 4)
    made = faulty.made
    own = signed_image(made)
    about = made.manifest(sbom(made), f"sha256-{own}.sbom") if deep else own
    many = [made.manifest(bundle(made, about, SIGNED)) for _ in range(3 if deep else 4)]
    faulty.referrers[about] = encode(listing(made, *many))
    with pytest.raises(SealiftError) as e:
        pull(workspace, faulty.host)
    assert (e.value.id, e.value.exit_code) == ("source.referrers", 3)
    monkeypatch.setattr(referrers, "MAX_REFERRERS", 5)
    assert pull(workspace, faulty.host).digest == own


def test_what_is_read_beside_one_image_has_an_end(
    workspace: Workspace, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Things that nobody carries, beside each of several bills of materials, cost requests too."""
    monkeypatch.setattr(referrers, "_MAX_READ", 12)
    made = faulty.made
    own = made.image(TAR, tag="1")
    bills = [made.manifest({**sbom(made), "annotations": {"n": str(n)}}) for n in range(3)]
    faulty.referrers[own] = encode(listing(made, *bills))
    for number, bill in enumerate(bills):
        odd = [made.descriptor("application/vnd.example", bytes([number, i])) for i in range(5)]
        many = [made.manifest({**beside(made, o), "subject": None}) for o in odd]
        faulty.referrers[bill] = encode(listing(made, *many))
    with pytest.raises(SealiftError) as e:
        pull(workspace, faulty.host)
    assert (e.value.id, e.value.exit_code) == ("source.referrers", 3)
    assert "more than 12 were looked at" in e.value.why
    monkeypatch.setattr(referrers, "_MAX_READ", 18)
    assert pull(workspace, faulty.host).digest == own


def test_referrers_beyond_those_looked_at_are_told(
    workspace: Workspace, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(referrers, "MAX_REFERRERS", 2)
    made = faulty.made
    own = made.image(TAR, tag="1")
    other = [made.descriptor("application/vnd.example", bytes([i])) for i in range(5)]
    many = [made.manifest({**beside(made, o), "subject": None}) for o in other]
    faulty.referrers[own] = encode(listing(made, *many))
    events: list[Event] = []
    request = ImageRequest(reference=f"{faulty.host}/team/app:1", platform="linux/amd64")
    images.lock_image(request, workspace.store, events.append)
    left = [e.text for e in events if isinstance(e, Line) and e.label == "leave out"]
    assert [text for text in left if text.startswith("2 more beside")]


@pytest.mark.parametrize("kind", [DSSE, BUNDLE])
def test_attestation_with_other_bytes_in_the_store_covers_nothing(
    workspace: Workspace, faulty: Faulty, kind: str
) -> None:
    made = faulty.made
    own = signed_image(made)
    document = envelope(statement(own, SLSA), STRANGER)
    forged = envelope(statement(own, SLSA), KEY)
    bodies = [encode(e if kind == DSSE else {"dsseEnvelope": e}) for e in (document, forged)]
    bodies = [b.ljust(max(map(len, bodies))) for b in bodies]
    made.manifest(beside(made, made.descriptor(kind, bodies[0])), f"sha256-{own}.att")
    image = pull(workspace, faulty.host)
    place = workspace.store.blob_path(sha(bodies[0]))
    place.chmod(0o600)
    place.write_bytes(bodies[1])
    found, coverage = look(workspace, image, pem(KEY))
    assert {c.verdict for c in coverage.files} == {"not-covered"}
    assert of(found, "image.attested") == []


def test_manifest_with_other_bytes_in_the_store_covers_nothing(
    workspace: Workspace, faulty: Faulty
) -> None:
    """The same JSON in other bytes: the image's own, its index, its configuration, a referrer's."""
    made = faulty.made
    own = made.image(TAR)
    top = made.index({"linux/amd64": own}, tag="1")
    beside_it = made.manifest(sign(made, top), f"sha256-{top}.sig")
    image = pull(workspace, faulty.host)
    files = {str(f.path): f.sha256 for f in image.files}
    names = ("manifest.json", "index.json", "config.json", f"referrers/{beside_it}/manifest.json")
    for name in names:
        place = workspace.store.blob_path(files[name])
        right = place.read_bytes()
        place.chmod(0o600)
        place.write_bytes(right.replace(b" ", b"\n", 1))
        found, coverage = look(workspace, image, pem(KEY))
        assert {c.verdict for c in coverage.files} == {"not-covered"}, name
        assert of(found, "image.signed") == []
        place.write_bytes(right)
    assert of(look(workspace, image, pem(KEY))[0], "image.signed")
