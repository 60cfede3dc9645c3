"""Solo mode: one key, threshold 1, the same formats, so that officers can be added later."""

from __future__ import annotations

from pathlib import Path

from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Metadata

from airgap.errors import TrustError
from bundler.officers import keys
from bundler.officers.collect import builder_files
from bundler.officers.repository import Published, TrustRepository
from bundler.officers.staging import TRANSIT_DAYS, Roles, first_targets, make_root, to_bytes

NAME = "solo"


def init_solo(
    repository: TrustRepository, key_path: Path, passphrase: bytes | None, now: int
) -> Published:
    """Make the key, and publish root 1 and empty targets 1. Nobody else has to be asked.

    A killed run leaves at most the key, which the next run uses.
    """
    if repository.exists():
        raise TrustError(
            "trust.exists",
            f"{repository.path} holds a published trust already",
            why="starting again would cut off every host that trusts it",
            do="use another --home; to add officers use `sealift trust rotate`",
        )
    if not key_path.exists():
        keys.new_key(key_path, NAME, passphrase)
    _, signer = keys.load_signer(key_path, passphrase)
    key = signer.public_key
    assert isinstance(key, SSlibKey)  # noqa: S101 - load_signer makes Ed25519 file keys
    root = Metadata(make_root(1, Roles([key], key, 1, solo=True), now))
    targets = Metadata(first_targets(now))
    for metadata in (root, targets):
        metadata.sign(signer)
    files = {"1.root.json": to_bytes(root), "1.targets.json": to_bytes(targets)}
    files |= builder_files(None, files["1.targets.json"], signer, now, TRANSIT_DAYS)
    repository.publish(files)
    return repository.published()
