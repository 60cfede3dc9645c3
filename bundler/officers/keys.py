"""Keys as files: Ed25519 in encrypted PKCS#8 (RFC 8410, RFC 5958), and their public halves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from securesystemslib.signer import Signer, SSlibKey

from airgap import fsio
from airgap.errors import FormatError, TrustError, UsageError
from airgap.format.codec import Document
from airgap.format.rules import Choice, Text
from airgap.format.types import Officer
from airgap.trust.keys import OFFICER_FIELD

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

BUILDER = "builder"


@dataclass(frozen=True, kw_only=True)
class PublicKey(Document):
    """A public key to hand to whoever sets up trust. `owner` is the officer, or `builder`."""

    schema: Annotated[str, Choice(("sealift.public-key/1",))] = "sealift.public-key/1"
    owner: Officer
    keytype: Annotated[str, Choice(("ed25519",))] = "ed25519"
    scheme: Annotated[str, Choice(("ed25519",))] = "ed25519"
    public: Annotated[str, Text(r"[0-9a-f]{64}", 64, "an Ed25519 public key in hex")]

    def tuf_key(self, *, officer: bool) -> SSlibKey:
        """The key as TUF metadata carries it; an officer's names the officer."""
        from securesystemslib.signer._utils import compute_default_keyid

        keyval = {"public": self.public}
        keyid = compute_default_keyid(self.keytype, self.scheme, keyval)
        extra = {OFFICER_FIELD: self.owner} if officer else {}
        return SSlibKey(keyid, self.keytype, self.scheme, keyval, extra)


def new_key(path: Path, owner: str, passphrase: bytes | None) -> PublicKey:
    """Make a key pair: `path` (mode 0600) and `path` with suffix .pub. Never overwrites.

    `passphrase` None writes the private key in the clear: for the builder's key, whose power is
    small (it can withhold, never add), or for tests.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    public = _public(key, owner)
    for file in (path, path.with_suffix(".pub")):
        if file.exists():
            raise UsageError(
                "key.exists",
                f"{file} exists already",
                why="a key is never overwritten: what it signed would be lost",
                do="choose another name, or move the old key away yourself",
            )
    fsio.create(path, pem, mode=0o600)
    fsio.create(path.with_suffix(".pub"), public.to_bytes())
    return public


def read_public(path: Path) -> PublicKey:
    """Read a .pub file."""
    try:
        return PublicKey.from_bytes(path.read_bytes())
    except FileNotFoundError as e:
        raise UsageError(
            "key.missing", f"there is no key {path}", why="no such file", do="see `sealift key new`"
        ) from e
    except FormatError as e:
        raise UsageError(
            "key.unreadable",
            f"{path} is not a public key",
            why=f"{e.where}: {e.why}",
            do="take the .pub file that `sealift key new` wrote",
        ) from e


def load_signer(path: Path, passphrase: bytes | None) -> tuple[PublicKey, Signer]:
    """The private key of `path`, ready to sign, and its public half.

    Raises TrustError `key.passphrase` or UsageError.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    owner = read_public(path.with_suffix(".pub")).owner
    try:
        key = load_pem_private_key(path.read_bytes(), passphrase)
    except (ValueError, TypeError) as e:
        raise TrustError(
            "key.passphrase",
            f"{path} cannot be opened",
            why="the passphrase is wrong or missing, or the file is damaged",
            do="try again; without the passphrase the key is lost and must be replaced",
        ) from e
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            "key.unreadable",
            f"{path} is not an Ed25519 key",
            why="this version signs with Ed25519 files",
            do="make one with `sealift key new`",
        )
    public = _public(key, owner)
    tuf_key = public.tuf_key(officer=owner != BUILDER)
    return public, CryptoSigner(key, tuf_key)


def is_encrypted(path: Path) -> bool:
    """Whether a passphrase is needed (PKCS#8 says so in its PEM header)."""
    try:
        return b"ENCRYPTED" in path.read_bytes()[:64]
    except FileNotFoundError as e:
        raise UsageError(
            "key.missing", f"there is no key {path}", why="no such file", do="see `sealift key new`"
        ) from e


def _public(key: Ed25519PrivateKey, owner: str) -> PublicKey:
    return PublicKey(owner=owner, public=key.public_key().public_bytes_raw().hex())
