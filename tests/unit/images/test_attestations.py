"""What is attested of an image counts only by a key of the policy, over exactly what was signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from bundler.scan import attestations, bounds, signatures
from bundler.scan.attestations import Unproven
from bundler.scan.image_keys import load_keys
from tests.unit.images.maker import encode
from tests.unit.images.signed import (
    BOM,
    BUNDLE,
    DSSE,
    IN_TOTO,
    KEY,
    SIGNED,
    SIMPLE,
    SLSA,
    STRANGER,
    V01,
    Private,
    b64,
    envelope,
    made_by,
    pae,
    pem,
    simple,
    statement,
)

OWN = "a" * 64
ED25519 = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)
KEYS = load_keys([pem(KEY), pem(ED25519), pem(RSA)])
ATTESTED = statement(OWN, SLSA)


def read(document: Any, kind: str = DSSE) -> attestations.Attested:
    data = document if isinstance(document, bytes) else encode(document)
    return attestations.read(data, kind, KEYS)


def refused(document: Any, kind: str = DSSE) -> str:
    with pytest.raises(Unproven) as e:
        read(document, kind)
    return str(e.value)


@pytest.mark.parametrize("number", [0, 1, 2], ids=["ecdsa", "ed25519", "rsa"])
def test_what_a_key_of_the_policy_signed_is_attested(number: int) -> None:
    keys: list[Private] = [KEY, ED25519, RSA]
    for kind, document in (
        (DSSE, envelope(ATTESTED, keys[number])),
        (BUNDLE, {"dsseEnvelope": envelope(ATTESTED, keys[number])}),
    ):
        found = read(document, kind)
        assert found.keys == {KEYS[number].fingerprint}
        assert (found.predicate, found.subjects) == (SLSA, {OWN})


def test_older_statements_and_several_subjects_count() -> None:
    subjects = [
        {"digest": {"gitCommit": "1" * 40}},
        {"digest": {"sha512": "2" * 128, "sha256": "b" * 64}},
        {"name": "_", "digest": {"sha256": OWN}},
    ]
    found = read(envelope(statement(OWN, BOM, _type=V01, subject=subjects)))
    assert (found.predicate, found.subjects) == (BOM, {OWN, "b" * 64})


def test_key_that_the_policy_does_not_name_attests_nothing() -> None:
    assert "none of the 3 keys" in refused(envelope(ATTESTED, STRANGER))


def test_of_several_signatures_any_by_a_known_key_counts() -> None:
    assert read(envelope(ATTESTED, STRANGER, ED25519)).keys == {KEYS[1].fingerprint}
    both = read(envelope(ATTESTED, RSA, STRANGER, KEY))
    assert both.keys == {KEYS[0].fingerprint, KEYS[2].fingerprint}
    assert "none of the 3 keys" in refused(envelope(ATTESTED, STRANGER, STRANGER))


def test_key_id_decides_nothing() -> None:
    document = envelope(ATTESTED, STRANGER)
    document["signatures"][0]["keyid"] = KEYS[0].fingerprint
    assert "none of the 3 keys" in refused(document)
    document = envelope(ATTESTED)
    document["signatures"][0]["keyid"] = "somebody else's"
    del document["payloadType"]
    document |= {"payloadType": IN_TOTO, "unknown": {"fields": "are ignored"}}
    assert read(document).keys == {KEYS[0].fingerprint}


def test_bundle_has_one_signature() -> None:
    two = {"dsseEnvelope": envelope(ATTESTED, KEY, KEY)}
    assert "2 signatures, not one" in refused(two, BUNDLE)


def test_payload_altered_after_signing_attests_nothing() -> None:
    document = envelope(ATTESTED)
    document["payload"] = b64(ATTESTED.replace(b"buildDefinition", b"BuildDefinition"))
    assert "none of the 3 keys" in refused(document)
    document["payload"] = b64(ATTESTED + b"\n")
    assert "none of the 3 keys" in refused(document)


def test_payload_type_altered_after_signing_attests_nothing() -> None:
    document = envelope(ATTESTED)
    document["payloadType"] = "application/json"
    assert "none of the 3 keys" in refused(document)


def test_signature_over_the_bare_payload_is_none_of_the_envelope() -> None:
    document = envelope(ATTESTED)
    document["signatures"] = [{"sig": b64(made_by(KEY, ATTESTED))}]
    assert "none of the 3 keys" in refused(document)


def test_simple_signing_payload_in_an_envelope_attests_nothing() -> None:
    payload = simple(OWN)
    assert "it was signed as" in refused(envelope(payload, kind=SIMPLE))
    assert "no in-toto statement" in refused(envelope(payload))
    borrowed = envelope(payload)
    borrowed["signatures"] = [{"sig": b64(made_by(KEY, payload))}]
    assert "none of the 3 keys" in refused(borrowed)


def test_envelope_signature_is_none_of_the_simple_form() -> None:
    """What DSSE signs is no JSON, so no bytes are both."""
    assert signatures.read(simple(OWN), b64(made_by(KEY, simple(OWN))), KEYS)[0] == OWN
    for payload in (ATTESTED, simple(OWN), pae(ATTESTED), pae(simple(OWN))):
        over = b64(made_by(KEY, pae(payload)))
        assert OWN not in signatures.read(payload, over, KEYS)
    over = b64(made_by(KEY, pae(simple(OWN))))
    assert OWN not in signatures.read(pae(simple(OWN)), over, KEYS)


@pytest.mark.parametrize("safe", [False, True], ids=["standard", "url-safe"])
def test_base64_is_read_in_both_alphabets(safe: bool) -> None:
    """DSSE 1.0.0, protocol.md: verifiers MUST accept either."""
    payload = statement(OWN, SLSA, note="ÿÿþ~~~???>>>")
    payload = payload.replace(b"\\u00ff", "ÿ".encode())
    document = envelope(payload)
    document["payload"] = (base64.urlsafe_b64encode if safe else base64.b64encode)(payload).decode()
    assert set("-_" if safe else "+/") & set(document["payload"])
    assert read(document).predicate == SLSA


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:8] + "\n" + text[8:],
        lambda text: text[:8] + " " + text[8:],
        lambda text: "+-" + text[2:],
        lambda text: text + "AAAA====",
        lambda text: text[:-1],
        lambda text: text[:4] + "=" + text[4:],
        lambda text: text + "é",
        lambda _text: None,
        lambda text: [text],
    ],
)
@pytest.mark.parametrize("where", ["payload", "sig"])
def test_what_is_not_base64_is_no_envelope(spoil: Callable[[str], Any], where: str) -> None:
    payload = ATTESTED + b" " * (-(len(ATTESTED) + 1) % 3)
    document = envelope(payload, ED25519)
    place = document if where == "payload" else document["signatures"][0]
    place[where] = spoil(place[where])
    assert "is not base64" in refused(document)


def test_a_signature_that_cannot_be_decoded_spoils_the_envelope() -> None:
    """protocol.md: reject if decoding fails."""
    document = envelope(ATTESTED)
    document["signatures"].append({"keyid": ""})
    assert "sig is not base64" in refused(document)


@pytest.mark.parametrize(
    "bend",
    [
        {"signatures": None},
        {"signatures": "text"},
        {"signatures": [["sig"]]},
        {"payloadType": None},
        {"payloadType": 7},
        {"payloadType": "application/vnd.in-toto+json\ud800"},
        {"payload": 7},
    ],
)
def test_envelope_of_another_shape_is_none(bend: dict[str, Any]) -> None:
    assert "it is no signed envelope" in refused({**envelope(ATTESTED), **bend})


@pytest.mark.parametrize("document", [b"", b"[]", b"null", b"DSSEv1", b"\xff", b"{}", b'"x"'])
@pytest.mark.parametrize("kind", [DSSE, BUNDLE])
def test_what_is_no_envelope_at_all_is_none(document: bytes, kind: str) -> None:
    assert "it is no signed envelope" in refused(document, kind)


def test_bundle_of_another_content_is_none() -> None:
    document = {"messageSignature": {"messageDigest": {}, "signature": ""}}
    assert "holds no DSSE envelope" in refused(document, BUNDLE)
    assert "holds no DSSE envelope" in refused(envelope(ATTESTED), BUNDLE)
    assert "signatures is no list" in refused({"dsseEnvelope": envelope(ATTESTED)}, DSSE)


def test_envelope_without_end_of_signatures_is_not_tried() -> None:
    document = envelope(ATTESTED, *[STRANGER] * bounds.MAX_ENVELOPE_SIGNATURES)
    assert "none of the 3 keys" in refused(document)
    document = envelope(ATTESTED)
    document["signatures"] *= bounds.MAX_ENVELOPE_SIGNATURES + 1
    assert f"{bounds.MAX_ENVELOPE_SIGNATURES + 1} signatures" in refused(document)


@pytest.mark.parametrize("signed", [False, True], ids=["in the envelope", "in the payload"])
def test_key_that_stands_twice_attests_nothing(signed: bool) -> None:
    """Readers differ in which of the two counts."""
    if signed:
        other = json.dumps({"subject": [{"digest": {"sha256": "b" * 64}}]}).encode()
        payload = ATTESTED.rstrip()[:-1] + b"," + other[1:]
        assert json.loads(payload)["subject"][0]["digest"]["sha256"] == "b" * 64
        assert "a key stands there twice" in refused(envelope(payload))
    else:
        data = encode(envelope(ATTESTED)).rstrip()[:-1] + b', "payloadType": "x"}'
        assert "a key stands there twice" in refused(data)


@pytest.mark.parametrize(
    "bend",
    [
        {"_type": "https://in-toto.io/Statement/v2"},
        {"_type": None},
        {"predicateType": ""},
        {"predicateType": "two words"},
        {"predicateType": "https://example.org/\u202e"},
        {"predicateType": "x" * 257},
        {"predicateType": ["x"]},
        {"subject": []},
        {"subject": {"digest": {"sha256": OWN}}},
        {"subject": [{"name": "no digest"}]},
        {"subject": [{"digest": OWN}]},
        {"subject": ["text"]},
    ],
)
def test_signed_words_that_are_no_statement_attest_nothing(bend: dict[str, Any]) -> None:
    assert "no in-toto statement" in refused(envelope(statement(OWN, SLSA, **bend)))


@pytest.mark.parametrize("payload", [b"", b"[]", b"\xff", b'{"_type": 1e', b"[" * 100_000])
def test_signed_bytes_that_are_no_json_attest_nothing(payload: bytes) -> None:
    assert "no in-toto statement" in refused(envelope(payload))


@pytest.mark.parametrize(
    "digest", [f"sha256:{OWN}", OWN.upper(), OWN[:-1], OWN + "a", "", 7, None, [OWN]]
)
def test_digest_in_another_spelling_is_nobodys(digest: Any) -> None:
    document = envelope(statement(OWN, SIGNED, subject=[{"digest": {"sha256": digest}}]))
    assert read(document).subjects == frozenset()
