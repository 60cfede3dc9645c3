"""Wheels by what their index says they are. Nothing of them is fetched or taken in."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from airgap import fsio
from airgap.errors import SourceError
from airgap.events import Sink
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.fetch.glance import Glance, glance
from bundler.fetch.item import Item
from bundler.fetch.pylock import Chosen
from bundler.fetch.wheels import choose_wheels
from bundler.plan.sizes import Part
from bundler.workspace import Workspace


def look(
    wheels: WheelsRequest, target: Target, base: Path, workspace: Workspace, sink: Sink
) -> Part:
    """Resolved as a lock would. Raises as locking does; an index that does not answer, and a server
    that tells no length, leave sizes unknown."""
    try:
        _, chosen = choose_wheels(wheels, target, base, workspace, sink)
    except SourceError as e:
        if e.id != "source.unreachable":
            raise
        return Part(wheels.name, "wheels", "indexes", 0, 0, 0, 1, f"unknown: {e.why[:200]}")
    sizes = _sizes(chosen)
    known = [(c, size) for c, size in zip(chosen, sizes, strict=True) if size is not None]
    here = sum(size for c, size in known if _lies_here(c) or workspace.store.has(c.sha256, size))
    source = ", ".join(wheels.requirements) or str(wheels.pylock)
    unknown = len(chosen) - len(known)
    note = f"{unknown} of unknown size: their servers tell no length" if unknown else ""
    total = sum(size for _, size in known)
    return Part(wheels.name, "wheels", source, len(chosen), total, here, unknown, note)


def _sizes(chosen: list[Chosen]) -> list[int | None]:
    """In bytes; what the index does not tell, the server of the file is asked for."""
    asked = [c for c in chosen if c.size is None and not _lies_here(c)]
    seen = glance([Item(c.url or "", c.sha256, None, c.filename) for c in asked])
    told = {c.filename: s.size for c, s in zip(asked, seen, strict=True) if isinstance(s, Glance)}
    return [_size(c) if _lies_here(c) else c.size or told.get(c.filename) for c in chosen]


def _lies_here(chosen: Chosen) -> bool:
    return chosen.file is not None or (chosen.url or "").startswith("file:")


def _size(chosen: Chosen) -> int:
    file = chosen.file or Path(unquote(urlsplit(chosen.url or "").path))
    with fsio.disk_errors(f"looking at {file}"):
        return file.stat().st_size
