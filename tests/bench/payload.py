"""The bench's bundle: shards of noise, an approved manifest over them, really packed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from airgap import fsio, limits
from airgap.format import layout
from airgap.format.artifacts import Model
from airgap.format.types import FileEntry
from airgap.trust.decide import DAY
from tests.lab import Lab


@dataclass(frozen=True)
class Made:
    """A bundle, the root that its host trusts, and its payload's size in bytes."""

    bundle: Path
    root_json: Path
    size: int

    @property
    def blobs(self) -> Path:
        """The folder that every contestant reads."""
        return self.bundle / layout.BLOBS


def make(work: Path, size: int, shards: int) -> Made:
    """Make a bundle of `size` bytes in `shards` files; the store it came from is removed."""
    now = int(time.time())
    lab = Lab(work / "connected", now=now)
    lab.init()
    entries = tuple(_shard(lab, i, size // shards) for i in range(shards))
    model = Model(
        name="model",
        source="bench",
        revision="1",
        format="gguf",
        publisher="",
        licence="apache-2.0",
        files=entries,
    )
    digest = lab.approve(artifacts=(model,), created=now, not_after=now + 30 * DAY)
    bundle = lab.pack(digest, work / "medium")
    root_json = work / "root.json"
    fsio.write(root_json, lab.repository.published().roots[1])
    fsio.remove_tree(lab.home)
    return Made(bundle, root_json, sum(e.size for e in entries))


def _shard(lab: Lab, number: int, size: int) -> FileEntry:
    """One file of noise in the store: seeded, so every run has the same bytes; nothing in it
    repeats, so no file system can save work on it."""
    import numpy
    from blake3 import blake3

    noise = numpy.random.default_rng(number)
    digest = blake3()
    with lab.store.incoming() as writer:
        for start in range(0, size, limits.COPY_CHUNK_BYTES):
            chunk = noise.bytes(min(limits.COPY_CHUNK_BYTES, size - start))
            digest.update(chunk)
            writer.write(chunk)
        done = writer.commit()
    name = PurePosixPath(f"model-{number + 1:05}.gguf")
    return FileEntry(path=name, sha256=done.sha256, blake3=digest.hexdigest(), size=done.size)
