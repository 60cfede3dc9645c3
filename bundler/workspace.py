"""Where a command writes: one home, every place in it named once.

`sealift --home DIR`, else `$SEALIFT_HOME`, else `./.sealift`. Deleting the folder undoes all of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from airgap.store import Store

HOME_VARIABLE = "SEALIFT_HOME"
DEFAULT_HOME = ".sealift"


@dataclass(frozen=True)
class Build:
    """The folder of one NAME/VERSION. Everything but `lock.json` can be made again from it."""

    folder: Path

    @property
    def lock(self) -> Path:
        """The lock, canonical JSON."""
        return self.folder / "lock.json"

    @property
    def findings(self) -> Path:
        """What the scanners found."""
        return self.folder / "findings.json"

    @property
    def coverage(self) -> Path:
        """The ledger of what was looked at."""
        return self.folder / "coverage.json"

    @property
    def bom(self) -> Path:
        """CycloneDX bill of materials."""
        return self.folder / "bom.json"

    @property
    def provenance(self) -> Path:
        """in-toto provenance statement."""
        return self.folder / "provenance.json"

    @property
    def policy(self) -> Path:
        """The policy that the gate judged by, canonical JSON."""
        return self.folder / "policy.json"

    @property
    def manifest(self) -> Path:
        """What officers approve."""
        return self.folder / "manifest.json"

    @property
    def report(self) -> Path:
        """What officers read."""
        return self.folder / "REVIEW.html"

    @property
    def packet(self) -> Path:
        """The folder that goes to the review desk."""
        return self.folder / "packet"


@dataclass(frozen=True)
class Workspace:
    """The connected side's home. `home` is absolute after `find`."""

    home: Path

    @classmethod
    def find(cls, named: Path | None, environment: Mapping[str, str] = os.environ) -> Workspace:
        """The home that was named on the command line, by the environment, or the default."""
        home = named or Path(environment.get(HOME_VARIABLE) or DEFAULT_HOME)
        return cls(Path(os.path.abspath(home.expanduser())))

    def build(self, name: str, version: str) -> Build:
        """The places of one NAME/VERSION."""
        return Build(self.home / "builds" / name / version)

    @property
    def store(self) -> Store:
        """The content-addressed store that all builds share."""
        return Store(self.home / "store")

    @property
    def lock_file(self) -> Path:
        """Held (flock) by a command that writes to the store or a build."""
        return self.home / "busy.lock"

    @property
    def trust(self) -> Path:
        """The publisher's trust repository; may be kept in git."""
        return self.home / "trust"

    @property
    def keys(self) -> Path:
        """Private keys of this machine, for people who do not name another place."""
        return self.home / "keys"

    @property
    def officers(self) -> Path:
        """What officers who work on this machine remember: their own trusted targets."""
        return self.home / "officers"

    @property
    def cache(self) -> Path:
        """Derived data, to be deleted at will."""
        return self.home / "cache"

    @property
    def memory(self) -> Path:
        """What scanners found in files before, by their SHA-256: see bundler.scan.memory."""
        return self.cache / "scanned"

    @property
    def uv_cache(self) -> Path:
        """uv's cache of index pages and metadata."""
        return self.cache / "uv"
