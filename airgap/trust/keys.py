"""Keys of a TUF root: whose they are, and whether two of them are the same key.

A TUF key id is only a label: the same public key can stand under two of them, in another case or
in another PEM wrapping. People are counted by key material, never by key id.
"""

from __future__ import annotations

import base64
import binascii
import re

from securesystemslib.signer import Key

from airgap.errors import TrustError

OFFICER_FIELD = "x-sealift-officer"
_OFFICER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
_PEM = re.compile(
    r"-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/=\n]{1,8000})\n-----END PUBLIC KEY-----\n?"
)
# SubjectPublicKeyInfo (RFC 5280 section 4.1) by scheme: where its fixed bytes begin, those bytes
# (algorithm identifier, BIT STRING header, for curves the mark of an uncompressed point), and its
# whole length in bytes. RFC 5480 for the curves, RFC 8017 for RSA (whose length varies), RFC 9881
# for ML-DSA.
_FORMS: dict[str, tuple[int, bytes, int | None]] = {
    "ecdsa-sha2-nistp256": (
        0,
        bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
        91,
    ),
    "ecdsa-sha2-nistp384": (
        0,
        bytes.fromhex("3076301006072a8648ce3d020106052b8104002203620004"),
        120,
    ),
    "ecdsa-sha2-nistp521": (
        0,
        bytes.fromhex("30819b301006072a8648ce3d020106052b810400230381860004"),
        158,
    ),
    "rsa": (4, bytes.fromhex("300d06092a864886f70d01010105000382"), None),
    "ml-dsa-44/1": (0, bytes.fromhex("30820532300b06096086480165030403110382052100"), 1334),
    "ml-dsa-65/1": (0, bytes.fromhex("308207b2300b0609608648016503040312038207a100"), 1974),
    "ml-dsa-87/1": (0, bytes.fromhex("30820a32300b060960864801650304031303820a2100"), 2614),
}


def officer_of(key: Key) -> str | None:
    """The officer a key belongs to; None for a builder's key."""
    name = key.unrecognized_fields.get(OFFICER_FIELD)
    if name is None:
        return None
    if not isinstance(name, str) or _OFFICER.fullmatch(name) is None:
        raise TrustError(
            "trust.root-rules",
            "a key of the root names no proper officer",
            why=f"{OFFICER_FIELD} is {str(name)[:40]!r}",
            do="ask the officers for a root made by `sealift trust init` or `rotate`",
        )
    return name


def material(key: Key) -> bytes:
    """The public key itself, normalised: raw bytes of Ed25519, DER of anything in PEM."""
    public = key.keyval.get("public")
    if not isinstance(public, str):
        raise _unreadable(key)
    try:
        if key.keytype == "ed25519":
            raw = bytes.fromhex(public)
            if len(raw) != 32:
                raise _unreadable(key)
            return raw
        return _spki(key, public)
    except (ValueError, binascii.Error) as e:
        raise _unreadable(key) from e


def _spki(key: Key, public: str) -> bytes:
    """The DER of a PEM public key, in the one form that it may have here.

    Libraries also read PKCS#1 wrapping, compressed points, other algorithm identifiers and text
    around the PEM: all of them would make one key look like two.
    """
    pem = _PEM.fullmatch(public)
    form = _FORMS.get("rsa" if key.keytype == "rsa" else key.scheme)
    if pem is None or form is None:
        raise _unreadable(key)
    der = base64.b64decode(pem[1].replace("\n", ""), validate=True)
    at, head, size = form
    if der[at : at + len(head)] != head or size not in (None, len(der)):
        raise _unreadable(key)
    return der


def can_check(key: Key) -> bool:
    """Whether signatures by this key can be checked here. Ed25519 needs no native code."""
    if key.keytype == "ed25519":
        return True
    try:
        if key.keytype == "ml-dsa":
            import cryptography.hazmat.primitives.asymmetric.mldsa  # since cryptography 48
        else:
            import cryptography  # noqa: F401
    except ImportError:
        return False
    return True


def _unreadable(key: Key) -> TrustError:
    return TrustError(
        "trust.root-rules",
        "a key of the root cannot be read",
        why=f"key {key.keyid[:12]} ({key.keytype}) holds no proper public key",
        do="ask the officers for a root made by `sealift trust init` or `rotate`",
    )
