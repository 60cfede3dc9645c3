"""`sealift plan`: everything about a request that can be said before it is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airgap.events import Sink, silent
from airgap.format.facts import Facts
from airgap.format.request import Request
from airgap.store import Store
from bundler.plan import files, image, memory, sizes, suits, variants, wheels
from bundler.plan.image import LookedImage
from bundler.plan.judgement import Judgement
from bundler.plan.memory import Machine, Memory
from bundler.plan.model import Looked, look, tree
from bundler.plan.sizes import Disk, Part
from bundler.plan.variants import Suggested, Variant
from bundler.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """The answer; `fits` is whether nothing that is known stands against it."""

    request: Request
    parts: list[Part]
    media: dict[str, int]
    disk: Disk
    memory: Memory | None
    suggested: Suggested | None
    judged: list[Judgement]

    @property
    def total(self) -> int:
        """Bytes of payload."""
        return sum(p.bytes for p in self.parts)

    @property
    def complete(self) -> bool:
        """Whether the size of everything is known."""
        return not any(p.unknown for p in self.parts)

    @property
    def download(self) -> int:
        """Bytes that are not here yet."""
        return sum(p.bytes - p.here for p in self.parts)

    @property
    def ways(self) -> list[str]:
        """What would make the memory suffice, each as a sentence. An estimate is no way where the
        Hub has the real thing."""
        found = self.memory
        if found is None or found.fits:
            return []
        real = self.suggested.best if self.suggested else None
        named = [_named(real)] if real else found.estimate
        return [*found.ways, *named] or ["a smaller model, or a host with more memory"]

    @property
    def fits(self) -> bool:
        """Disk, memory, and everything that was compared with the host."""
        enough = self.memory is None or self.memory.fits
        return enough and not self.disk.lacking and all(j.fits for j in self.judged)


def _named(variant: Variant) -> str:
    """As a request would name it; whose it is stands beside it."""
    include = f', include = ["{variant.include}"]' if variant.include else ""
    named = f'repo = "{variant.repo}", revision = "{variant.commit}"{include} fits'
    whose = "the same publisher" if variant.same_publisher else f"published by {variant.publisher}"
    return f"{named} ({whose}, {variant.downloads:,} downloads lately: look at it first)"


def reckon(
    request: Request, base: Path, workspace: Workspace, facts: Facts | None, sink: Sink = silent
) -> Plan:
    """Raises as `sealift lock` does for sources that are wrong; one that does not answer, or needs
    a later version, only leaves its size unknown."""
    store = workspace.store
    looked = {m.name: look(m, base, store, sink) for m in request.model}
    parts = [found.part for found in looked.values()]
    parts += [tree(a, base, store, sink)[0] for a in request.adapter]
    parts += [wheels.look(w, request.target, base, workspace, sink) for w in request.wheels]
    containers = [image.look(i, store, sink) for i in request.image]
    parts += [seen.part for seen in containers]
    parts += files.look(request.file, store)
    total = sum(p.bytes for p in parts)
    found = _memory(request, looked, facts)
    return Plan(
        request=request,
        parts=parts,
        media=sizes.media(total),
        disk=sizes.disk(parts, request.serve, facts),
        memory=found,
        suggested=_suggest(request, found, base, store, facts, sink),
        judged=_judged(request, containers, facts),
    )


def _judged(
    request: Request, containers: list[LookedImage], facts: Facts | None
) -> list[Judgement]:
    """Images are also held against what the request itself asks for."""
    out = suits.judge(request, facts) if facts else []
    for seen in containers:
        out += image.judge(request, seen, facts)
    return out


def _memory(request: Request, looked: dict[str, Looked], facts: Facts | None) -> Memory | None:
    serve = request.serve
    model = looked.get(serve.model or next(iter(looked), "")) if serve is not None else None
    if serve is None or model is None:
        return None
    return memory.reckon(serve, model, Machine.of(request, facts))


def _suggest(
    request: Request,
    found: Memory | None,
    base: Path,
    store: Store,
    facts: Facts | None,
    sink: Sink,
) -> Suggested | None:
    """Asked only when it does not fit; a model of this machine has no variants that are known."""
    revision = found.model.revision if found is not None and not found.fits else None
    if found is None or revision is None or request.serve is None:
        return None
    machine = Machine.of(request, facts)
    return variants.suggest(request.serve, found, machine, facts, base, store, sink)
