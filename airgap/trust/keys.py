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
        body = [line for line in public.split("\n") if line and not line.startswith("-----")]
        return base64.b64decode("".join("".join(body).split()), validate=True)
    except (ValueError, binascii.Error) as e:
        raise _unreadable(key) from e


def can_check(key: Key) -> bool:
    """Whether signatures by this key can be checked here. Ed25519 needs no native code."""
    if key.keytype == "ed25519":
        return True
    try:
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
