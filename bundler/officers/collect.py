"""Counts what the officers made of a packet, and publishes it: the builder's only signatures."""

from __future__ import annotations

import hashlib
from typing import Any

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, Signer
from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from airgap import limits
from airgap.errors import TrustError
from airgap.trust import statements
from airgap.trust.decide import DAY
from airgap.trust.metadata import check_threshold, is_solo, parse
from airgap.trust.rules import BUILDER_ROLES, RootDemands, check_root
from bundler.officers.packet import Packet, SignatureFile, read_signatures
from bundler.officers.repository import Pending, Published, TrustRepository
from bundler.officers.staging import TRANSIT_DAYS, make_snapshot, make_timestamp


def collect(
    packet: Packet,
    repository: TrustRepository,
    builder: Signer,
    now: int,
    transit_days: int = TRANSIT_DAYS,
) -> Published:
    """Check k signatures (and for a manifest k PASSED statements), sign snapshot and timestamp,
    publish. Raises TrustError; nothing is published then. Run again after a kill: it finishes."""
    published = repository.published() if repository.exists() else None
    files = read_signatures(packet)
    keys = _keys(packet, published)
    signed = {role: _assemble(packet, role, files, keys) for role in packet.staged}
    if published is not None and published.targets == _bytes(signed["targets"]):
        repository.set_pending(Pending())
        return published
    _check_base(packet, repository, published)
    root = _check_root(signed, published)
    # People first: "approved by alice only" says more than a count of signatures.
    keep = _count_statements(packet, root, files)
    targets = signed["targets"]
    check_threshold(root, "targets", targets, _named(targets.signed))
    out = {f"{m.signed.version}.{role}.json": _bytes(m) for role, m in signed.items()}
    out |= builder_files(published, _bytes(targets), builder, now, transit_days)
    _check_builder(root, out)
    if packet.manifest is not None and packet.report is not None:
        repository.keep_approved(packet.manifest, packet.report, keep)
    repository.publish(out)
    repository.set_pending(Pending())
    return repository.published()


def builder_files(
    published: Published | None, targets: bytes, builder: Signer, now: int, transit_days: int
) -> dict[str, bytes]:
    """Snapshot and timestamp over these targets, signed by the builder's key."""
    old_snapshot = old_timestamp = 0
    if published is not None:
        old_snapshot = parse(published.snapshot, Snapshot, limits.MAX_SNAPSHOT_BYTES).signed.version
        old_timestamp = parse(
            published.timestamp, Timestamp, limits.MAX_TIMESTAMP_BYTES
        ).signed.version
    version = parse(targets, Targets, limits.MAX_TARGETS_BYTES).signed.version
    expires = now + transit_days * DAY
    snapshot = _signed_bytes(make_snapshot(targets, version, old_snapshot + 1, expires), builder)
    timestamp = _signed_bytes(
        make_timestamp(snapshot, old_snapshot + 1, old_timestamp + 1, expires), builder
    )
    return {f"{old_snapshot + 1}.snapshot.json": snapshot, "timestamp.json": timestamp}


def _signed_bytes(signed: Signed, signer: Signer) -> bytes:
    metadata: Metadata[Any] = Metadata(signed)
    metadata.sign(signer)
    return _bytes(metadata)


def _bytes(metadata: Metadata[Any]) -> bytes:
    return metadata.to_bytes(JSONSerializer(compact=True))


def _keys(packet: Packet, published: Published | None) -> dict[str, Key]:
    """Every key whose signature may count: of the published root and of a staged one."""
    keys = dict(published.root.keys) if published is not None else {}
    if "root" in packet.staged:
        keys |= parse(packet.staged["root"], Root, limits.MAX_ROOT_BYTES).signed.keys
    return keys


def _assemble(
    packet: Packet, role: str, files: dict[str, SignatureFile], keys: dict[str, Key]
) -> Metadata[Any]:
    """The staged role with every officer's signature over it.

    Only signatures that fit are taken: whoever can write into the packet could else spoil
    another officer's, or have junk published.
    """
    metadata: Metadata[Any] = Metadata.from_bytes(packet.staged[role])
    metadata.signatures.clear()
    signed_bytes = metadata.signed_bytes
    for file in files.values():
        for s in file.signatures:
            signature = Signature(s.keyid, s.sig)
            if s.role == role and _fits(keys.get(s.keyid), signature, signed_bytes):
                metadata.signatures[s.keyid] = signature
    return metadata


def _fits(key: Key | None, signature: Signature, signed_bytes: bytes) -> bool:
    if key is None:
        return False
    try:
        key.verify_signature(signature, signed_bytes)
    except UnverifiedSignatureError:
        return False
    return True


def _check_root(signed: dict[str, Metadata[Any]], published: Published | None) -> Root:
    """The root that will hold, signed by the old one's officers and by its own."""
    new = signed.get("root")
    if new is None:
        if published is None:
            raise _stale("there is no published root")
        return published.root
    if published is not None:
        check_threshold(published.root, "root", new, _named(new.signed))
    root = new.signed
    check_threshold(root, "root", new, _named(root))
    check_root(root, RootDemands(1 if is_solo(root) else 2, is_solo(root)))
    return root  # type: ignore[no-any-return]


def _check_builder(root: Root, files: dict[str, bytes]) -> None:
    """Another key than the root's would publish what every host refuses."""
    for name, data in files.items():
        role = name.removesuffix(".json").split(".")[-1]
        if role in BUILDER_ROLES:
            check_threshold(root, role, Metadata.from_bytes(data), f"the builder's {role}")


def _named(signed: Signed) -> str:
    return f"{signed.type} {signed.version}"


def _count_statements(
    packet: Packet, root: Root, files: dict[str, SignatureFile]
) -> dict[str, bytes]:
    """Every statement of this packet by name, after k of them were counted as PASSED."""
    envelopes = [f.statement.encode() for f in files.values() if f.statement is not None]
    if packet.file.kind == "manifest" and packet.file.manifest is not None:
        verdicts = statements.count(root, packet.file.manifest, envelopes)
        if verdicts.report_sha256 != packet.file.report:
            raise _stale("the officers read another report than the packet's")
    return {statements.envelope_name(e): e for e in envelopes}


def _check_base(packet: Packet, repository: TrustRepository, published: Published | None) -> None:
    if repository.pending().packet not in (None, packet.digest):
        raise _stale("another packet is open")
    base = hashlib.sha256(published.targets).hexdigest() if published else None
    if packet.file.base_targets != base:
        raise _stale("the trust repository has moved on since it was made, or it was published")


def _stale(why: str) -> TrustError:
    return TrustError(
        "trust.packet-stale",
        "this packet cannot be published",
        why=why,
        do="see `sealift trust show`; run `sealift review` again if its change is still wanted",
    )
