"""Lock -> store: everything that a lock names and the store lacks.

What is there already is found out by its name and size alone. So a second fetch of many files does
no more than that, and what knows a Hub or a registry is imported only where something is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from airgap.errors import SourceError
from airgap.events import Sink, silent
from airgap.format.artifacts import (
    LockedAdapter,
    LockedArtifact,
    LockedFile,
    LockedImage,
    LockedModel,
)
from airgap.format.lock import Lock
from bundler.fetch.download import Arrived, Item, fetch, nobody
from bundler.fetch.item import Access
from bundler.fetch.options import Options
from bundler.workspace import Workspace


def fetch_locked(
    lock: Lock,
    workspace: Workspace,
    sink: Sink = silent,
    options: Options | None = None,
    arrived: Arrived = nobody,
) -> None:
    """Bring everything the lock names into the store; what is there already is left alone.
    `arrived` is called for each file that was fetched, from several threads.

    Raises SourceError (`source.*`), IntegrityError, DiskError.
    """
    store = workspace.store
    items: list[Item] = []
    for artifact in lock.artifacts:
        missing = [f for f in artifact.files if not store.has(f.sha256, f.size)]
        if missing:
            items += _items(artifact, missing, sink)
    if items:
        fetch(items, store, sink, options=options, arrived=arrived)


def _items(artifact: LockedArtifact, missing: Sequence[LockedFile], sink: Sink) -> list[Item]:
    if isinstance(artifact, LockedImage):
        from bundler.fetch.images import image_items

        return image_items(artifact)
    for f in missing:
        if f.url is None:
            raise _gone(f.path.name, f.label)
    access = _access(artifact, sink)
    return [Item(f.url, f.sha256, f.size, f.path.name, access) for f in missing if f.url]


def _access(artifact: LockedArtifact, sink: Sink) -> Access | None:
    """Files of a model or adapter that have addresses are the Hub's."""
    if not isinstance(artifact, LockedModel | LockedAdapter):
        return None
    from bundler.fetch.hub_api import Hub

    return Hub.find(sink).access(artifact.source.partition("/")[2])


def _gone(name: str, label: str) -> SourceError:
    return SourceError(
        "source.gone",
        f"{name} is not in the store",
        why=f"it was taken from a local source ({label}) when it was locked, not from a URL",
        do="run `sealift lock` again where that source is",
    )
