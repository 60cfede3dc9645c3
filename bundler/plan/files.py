"""Plain files by address: how long their servers say they are. Nothing of them is fetched."""

from __future__ import annotations

from collections.abc import Sequence

from airgap.format.request import FileRequest
from airgap.store import Store
from bundler.fetch.glance import Glance, glance
from bundler.fetch.item import Item
from bundler.fetch.plain import check_files, place_of
from bundler.plan.sizes import Part


def look(requests: Sequence[FileRequest], store: Store) -> list[Part]:
    """One part for each name. Raises UsageError as locking does; a server that says nothing, or
    has the file no longer, leaves its size unknown."""
    check_files(requests)
    here = {r.sha256: size for r in requests if (size := _stored(r.sha256, store)) is not None}
    asked = [r for r in requests if r.sha256 not in here]
    seen = glance([Item(r.url, r.sha256, None, str(place_of(r))) for r in asked])
    sizes: dict[str, int] = {}
    why: dict[str, str] = {}
    for request, found in zip(asked, seen, strict=True):
        if not isinstance(found, Glance):
            why[request.url] = found.why
        elif found.gone:
            why[request.url] = "it is no longer there"
        elif found.size is None:
            why[request.url] = "its server tells no length"
        else:
            sizes[request.url] = found.size
    names = dict.fromkeys(r.name for r in requests)
    return [
        _part(name, [r for r in requests if r.name == name], here, sizes, why) for name in names
    ]


def _part(
    name: str,
    requests: list[FileRequest],
    here: dict[str, int],
    sizes: dict[str, int],
    why: dict[str, str],
) -> Part:
    stored = sum(here.get(r.sha256, 0) for r in requests)
    unknown = [r for r in requests if r.url in why]
    note = ""
    if unknown:
        first = unknown[0]
        note = f"{len(unknown)} of unknown size; {place_of(first)}: {why[first.url][:200]}"
    total = stored + sum(sizes.get(r.url, 0) for r in requests if r.sha256 not in here)
    return Part(name, "files", "HTTPS", len(requests), total, stored, len(unknown), note)


def _stored(sha256: str, store: Store) -> int | None:
    """Its size, where the store has it."""
    path = store.blob_path(sha256)
    return path.stat().st_size if path.is_file() else None
