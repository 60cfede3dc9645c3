"""Is it the same key? By its material, in one form, whatever it is called."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, rsa
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Root

from airgap.errors import TrustError
from airgap.trust import keys
from airgap.trust.keys import OFFICER_FIELD, material, officer_of
from airgap.trust.learn import learn_roots, root_of
from tests.lab import T0, fixed_key
from tests.unit.trust.forge import Case, refused, sign
from tests.unit.trust.test_thresholds import next_root

P256 = ec.generate_private_key(ec.SECP256R1())


def pem(key: Any, form: s.PublicFormat = s.PublicFormat.SubjectPublicKeyInfo) -> str:
    return str(key.public_bytes(s.Encoding.PEM, form).decode())


def ecdsa(public: str, keyid: str = "e" * 64, scheme: str = "ecdsa-sha2-nistp256") -> SSlibKey:
    return SSlibKey(keyid, "ecdsa", scheme, {"public": public})


def test_ed25519_is_compared_by_its_bytes_in_any_spelling() -> None:
    key = fixed_key("alice").public_key
    one = material(key)
    assert len(one) == 32
    for text in (key.keyval["public"].upper(), " ".join(key.keyval["public"])):
        again = SSlibKey("x", "ed25519", "ed25519", {"public": text})
        try:
            assert material(again) == one
        except TrustError as e:
            assert e.id == "trust.root-rules"


@pytest.mark.parametrize("public", ["", "00", "g" * 64, "ab" * 33, None, 7])
def test_public_key_that_is_none_is_refused(public: Any) -> None:
    key = SSlibKey("x" * 64, "ed25519", "ed25519", {"public": "00"})
    key.keyval["public"] = public
    with pytest.raises(TrustError) as e:
        material(key)
    assert e.value.id == "trust.root-rules"


@pytest.mark.parametrize(
    ("key", "keytype", "scheme"),
    [
        (P256.public_key(), "ecdsa", "ecdsa-sha2-nistp256"),
        (ec.generate_private_key(ec.SECP384R1()).public_key(), "ecdsa", "ecdsa-sha2-nistp384"),
        (ec.generate_private_key(ec.SECP521R1()).public_key(), "ecdsa", "ecdsa-sha2-nistp521"),
        (rsa.generate_private_key(65537, 2048).public_key(), "rsa", "rsassa-pss-sha256"),
        (mldsa.MLDSA44PrivateKey.generate().public_key(), "ml-dsa", "ml-dsa-44/1"),
        (mldsa.MLDSA65PrivateKey.generate().public_key(), "ml-dsa", "ml-dsa-65/1"),
        (mldsa.MLDSA87PrivateKey.generate().public_key(), "ml-dsa", "ml-dsa-87/1"),
    ],
)
def test_every_scheme_is_read_in_the_form_that_libraries_write(
    key: Any, keytype: str, scheme: str
) -> None:
    der = key.public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
    assert material(SSlibKey("x", keytype, scheme, {"public": pem(key)})) == der


def compressed() -> str:
    point = P256.public_key().public_bytes(s.Encoding.X962, s.PublicFormat.CompressedPoint)
    der = bytes.fromhex("3039301306072a8648ce3d020106082a8648ce3d030107032200") + point
    return _armour(der)


def _armour(der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


@pytest.mark.parametrize(
    "public",
    [
        compressed(),
        "a comment\n" + pem(P256.public_key()),
        pem(P256.public_key()) + "more",
        pem(P256.public_key()).replace("\n", "\r\n"),
        _armour(
            P256.public_key().public_bytes(s.Encoding.DER, s.PublicFormat.SubjectPublicKeyInfo)
            + b"x"
        ),
        "-----BEGIN PUBLIC KEY-----\n====\n-----END PUBLIC KEY-----\n",
    ],
)
def test_second_form_of_one_key_is_refused(public: str) -> None:
    """A library reads most of them; each would make one key look like two."""
    with pytest.raises(TrustError) as e:
        material(ecdsa(public))
    assert e.value.id == "trust.root-rules"


def test_line_breaks_in_the_pem_make_no_other_key() -> None:
    text = pem(P256.public_key())
    head, *body, end = text.strip().split("\n")
    joined = "\n".join([head, "".join(body), end]) + "\n"
    assert joined != text
    assert material(ecdsa(joined)) == material(ecdsa(text))


def test_pkcs1_wrapping_of_an_rsa_key_is_refused() -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    with pytest.raises(TrustError):
        material(
            SSlibKey("x", "rsa", "rsassa-pss-sha256", {"public": pem(public, s.PublicFormat.PKCS1)})
        )


def test_one_elliptic_key_under_two_officers_is_refused(case: Case) -> None:
    root = next_root(case)
    text = pem(P256.public_key())
    for number, name in enumerate(("dave", "erin")):
        key = ecdsa(text.replace("\n", "\n" * (number + 1)), name[0] * 64)
        key.unrecognized_fields[OFFICER_FIELD] = name
        root.keys[key.keyid] = key
        root.roles["targets"].keyids.append(key.keyid)
    decision = case.root_file(root, "alice", "bob").decide()
    refused(decision, "trust.root-rules")
    assert decision.learned.root == case.state.root


@pytest.mark.parametrize(
    "name", ["Alice", "", "a b", "alice\n", "\u0430lice", 7, None, ["x"], "a" * 40]
)
def test_name_that_is_no_officers_is_refused(name: Any) -> None:
    key = SSlibKey("x", "ed25519", "ed25519", {"public": "00"}, {OFFICER_FIELD: name})
    if name is None:
        assert officer_of(key) is None
        return
    with pytest.raises(TrustError) as e:
        officer_of(key)
    assert e.value.id == "trust.root-rules"


# --- a scheme that nothing here can check


def elliptic_root(case: Case) -> tuple[Root, CryptoSigner]:
    """Root 2, where bob moved to an elliptic key."""
    root = next_root(case)
    bob = case.lab.signer("bob").public_key.keyid
    signer = CryptoSigner(P256, ecdsa(pem(P256.public_key())))
    key: Any = signer.public_key
    key.unrecognized_fields[OFFICER_FIELD] = "bob"
    del root.keys[bob]
    root.keys[key.keyid] = key
    for role in ("root", "targets"):
        root.roles[role].keyids[1] = key.keyid
    return root, signer


WITHOUT = """
import sys
sys.modules["cryptography"] = None
from pathlib import Path
from airgap.format.policy import STRICT
from airgap.trust.learn import learn_roots
from airgap.trust.state import Remembered
folder = Path(sys.argv[1])
state = Remembered("h", (folder / "1").read_bytes(), None, 0)
after, stopped = learn_roots(state, {"2.root.json": (folder / "2").read_bytes()}, 2)
print(after == state, stopped and stopped.id, stopped and stopped.exit_code)
"""


def test_missing_library_is_said_and_is_never_too_few(case: Case, tmp_path: Path) -> None:
    """In an interpreter that has no `cryptography`, as on a host from the kit alone."""
    root, signer = elliptic_root(case)
    data = sign(root, *case.signers("alice", "bob"), signer)
    (tmp_path / "1").write_bytes(case.state.root)
    (tmp_path / "2").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "trust.scheme-unavailable", "4"]
    after, stopped = learn_roots(case.state, {"2.root.json": data}, 2)
    assert stopped is None and root_of(after).version == 2


def test_what_can_be_checked_without_it_is_enough(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three by Ed25519: the third, that cannot be checked, is not needed."""
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert not keys.can_check(ecdsa("x"))
    assert keys.can_check(fixed_key("alice").public_key)
    assert case.decide().approved().valid_until > T0
