"""The one adapter around python-tuf's `Updater` (tuf is pinned; tests/unit/trust/ hold this).

`Updater` runs the TUF 1.0 client workflow (section 5.3 to 5.6), bootstrapped with the newest root
that the host remembers, over files that already lie in memory. It has no cache of its own here:
each check starts from nothing, and writes nothing (docs/decisions/0003-updater-in-memory.md).
Its clock is set here: it takes wall time when it is made, and has no argument for it.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import MetaFile, Root, Snapshot, Targets, Timestamp

from airgap import limits
from airgap.errors import TrustError
from airgap.trust.metadata import parse
from airgap.trust.offline import keep_out

keep_out()
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig  # noqa: E402 - after keep_out

_BASE = "mem:///"
# Nothing can ever lie below a device: every look into python-tuf's cache fails.
_NO_FOLDER = "/dev/null"
_COPY = "copy the bundle again; if it is refused again, ask the builder for a new one"


class Refreshed:
    """Top-level metadata that passed the TUF workflow at one time."""

    def __init__(self, updater: Updater) -> None:
        trusted = updater._trusted_set
        self.root: Root = trusted.root
        self.timestamp: Timestamp = trusted.timestamp
        self.snapshot: Snapshot = trusted.snapshot
        self.targets: Targets = trusted.targets


class _MemoryFetcher(FetcherInterface):
    """Answers from the quarantine. What is not there is 404, as TUF's root walk expects."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        data = self._files.get(url[len(_BASE) :])
        if data is None:
            raise DownloadHTTPError(f"{url} is not in the bundle", 404)
        yield data

    def download_bytes(self, url: str, max_length: int) -> bytes:
        """As the base class does it, but not by way of a temporary file in /tmp: a host's /tmp may
        be full, and what is in quarantine is written nowhere."""
        data = b"".join(self.fetch(url))
        if len(data) > max_length:
            raise DownloadLengthMismatchError(
                f"{url[len(_BASE) :]} has {len(data)} bytes, it may have {max_length}"
            )
        return data


class _CachelessUpdater(Updater):
    """python-tuf's client without its cache on disk."""

    def _persist_file(self, filename: str, data: bytes) -> None:
        """Keep nothing."""

    def _persist_root(self, version: int, data: bytes) -> None:
        """Keep nothing."""

    def _update_root_symlink(self) -> None:
        """There is no cache to point at."""


def refresh(root: bytes, metadata: Mapping[str, bytes], reference: int) -> Refreshed:
    """Step 5a: run the TUF workflow at the time `reference` (UTC seconds).

    `metadata` maps file names (`2.root.json`, `timestamp.json`) to bytes.
    Raises TrustError.
    """
    config = UpdaterConfig(
        max_root_rotations=limits.MAX_ROOT_ROTATIONS,
        root_max_length=limits.MAX_ROOT_BYTES,
        timestamp_max_length=limits.MAX_TIMESTAMP_BYTES,
        snapshot_max_length=limits.MAX_SNAPSHOT_BYTES,
        targets_max_length=limits.MAX_TARGETS_BYTES,
        prefix_targets_with_hash=False,
    )
    _check_builders_files(metadata)
    try:
        updater = _CachelessUpdater(
            metadata_dir=_NO_FOLDER,
            metadata_base_url=_BASE,
            fetcher=_MemoryFetcher(metadata),
            config=config,
            bootstrap=root,
        )
        updater._trusted_set.reference_time = datetime.datetime.fromtimestamp(
            reference, datetime.timezone.utc
        )
        updater.refresh()
    except (RepositoryError, DownloadError) as e:
        raise _translate(e) from e
    return Refreshed(updater)


def _check_builders_files(metadata: Mapping[str, bytes]) -> None:
    """Strict decoding of what python-tuf decodes leniently, and lengths and hashes everywhere.

    Roots and targets were decoded strictly before (airgap.trust.learn).
    """
    for name, data in metadata.items():
        if name == "timestamp.json":
            timestamp = parse(data, Timestamp, limits.MAX_TIMESTAMP_BYTES).signed
            _check_meta("timestamp", timestamp.snapshot_meta)
        elif name.endswith(".snapshot.json"):
            snapshot = parse(data, Snapshot, limits.MAX_SNAPSHOT_BYTES).signed
            if set(snapshot.meta) != {"targets.json"}:
                raise _refused("the snapshot names other files than targets.json")
            _check_meta("snapshot", snapshot.meta["targets.json"])


def _check_meta(role: str, meta: MetaFile) -> None:
    if meta.length is None or "sha256" not in (meta.hashes or {}):
        raise _refused(f"the {role} names a file without its length and SHA-256")


def _refused(why: str) -> TrustError:
    return TrustError("trust.metadata", "the trust metadata was refused", why=why, do=_COPY)


def _translate(e: Exception) -> TrustError:
    if isinstance(e, ExpiredMetadataError):
        return TrustError(
            "trust.expired",
            "the bundle's trust metadata has expired",
            why=str(e),
            do="ask the builder to run `sealift trust refresh` and to pack again; "
            "if officers' metadata expired, they must sign it again; check the host's clock too",
        )
    if isinstance(e, UnsignedMetadataError):
        return TrustError(
            "trust.signature", "a signature is missing or wrong", why=str(e), do=_COPY
        )
    # A file longer than the one that names it says is another file, not a missing one.
    if isinstance(
        e, (BadVersionNumberError, LengthOrHashMismatchError, DownloadLengthMismatchError)
    ):
        return TrustError(
            "trust.mixed",
            "the bundle's trust metadata does not belong together",
            why=str(e),
            do=_COPY,
        )
    if isinstance(e, DownloadError):
        return TrustError(
            "trust.incomplete", "the bundle's trust metadata is incomplete", why=str(e), do=_COPY
        )
    return _refused(str(e))
