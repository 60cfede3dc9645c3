"""`sealift plan`: everything about a request that can be said before it is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airgap.errors import SourceError
from airgap.events import Sink, silent
from airgap.format.artifacts import LockedArtifact
from airgap.format.facts import Facts
from airgap.format.request import ImageRequest, Request, WheelsRequest
from airgap.store import Store
from bundler.fetch import images
from bundler.fetch.wheels import lock_wheels
from bundler.plan import fit, sizes, suits
from bundler.plan.fit import Demand, Fit
from bundler.plan.model import Looked, look, tree
from bundler.plan.sizes import Disk, Part
from bundler.plan.suits import Judgement
from bundler.workspace import Workspace


@dataclass(frozen=True)
class Memory:
    """What serving takes of GPU memory, or of the host's own on a CPU. `found` is None where the
    host was not measured; then `common` says which GPUs would do."""

    model: Looked
    wanted: Demand
    found: Fit | None
    ways: list[str]
    common: list[str]
    on_cpu: int | None = None
    cpu_memory: int | None = None

    @property
    def fits(self) -> bool:
        """Also true where nothing was measured to compare with."""
        if self.on_cpu is not None and self.cpu_memory is not None:
            return self.on_cpu <= self.cpu_memory
        return self.found is None or self.found.fits


@dataclass(frozen=True)
class Plan:
    """The answer; `fits` is whether nothing that is known stands against it."""

    request: Request
    parts: list[Part]
    media: dict[str, int]
    disk: Disk
    memory: Memory | None
    judged: list[Judgement]

    @property
    def total(self) -> int:
        """Bytes of payload."""
        return sum(p.bytes for p in self.parts)

    @property
    def download(self) -> int:
        """Bytes that are not here yet."""
        return sum(p.bytes - p.here for p in self.parts)

    @property
    def fits(self) -> bool:
        """Disk, memory, and everything that was compared with the host."""
        memory = self.memory is None or self.memory.fits
        return memory and not self.disk.lacking and all(j.fits for j in self.judged)


def reckon(
    request: Request, base: Path, workspace: Workspace, facts: Facts | None, sink: Sink = silent
) -> Plan:
    """Raises as `sealift lock` does for sources that are wrong; one that does not answer, or needs
    a later version, only leaves its size unknown."""
    store = workspace.store
    looked = {m.name: look(m, base, store, sink) for m in request.model}
    parts = [found.part for found in looked.values()]
    parts += [tree(a, base, store, sink)[0] for a in request.adapter]
    parts += [_wheels(w, request, base, workspace, sink) for w in request.wheels]
    parts += [_image(i, store, sink) for i in request.image]
    for name in dict.fromkeys(f.name for f in request.file):
        urls = [f for f in request.file if f.name == name]
        here = sum(store.blob_path(f.sha256).is_file() for f in urls)
        note = "sizes are known once they are fetched"
        parts.append(Part(name, "files", "HTTPS", len(urls), 0, 0, len(urls) - here, note))
    total = sum(p.bytes for p in parts)
    return Plan(
        request=request,
        parts=parts,
        media=sizes.media(total),
        disk=sizes.disk(parts, request.serve, facts),
        memory=_memory(request, looked, facts),
        judged=suits.judge(request, facts) if facts else [],
    )


def _wheels(
    wheels: WheelsRequest, request: Request, base: Path, home: Workspace, sink: Sink
) -> Part:
    try:
        locked = lock_wheels(wheels, request.target, base, home, sink)
    except SourceError as e:
        if e.id != "source.unreachable":
            raise
        return Part(wheels.name, "wheels", "indexes", 0, 0, 0, 1, f"unknown: {e.why[:200]}")
    return _locked(locked, ", ".join(wheels.requirements) or str(wheels.pylock), home.store)


def _image(image: ImageRequest, store: Store, sink: Sink) -> Part:
    """By the registry's manifest, which has every layer's size."""
    try:
        return _locked(images.lock_image(image, store, sink), image.reference, store)
    except SourceError as e:
        if e.id != "source.unreachable":
            raise
        return Part(image.name, "image", image.reference, 0, 0, 0, 1, f"unknown: {e.why[:200]}")


def _locked(artifact: LockedArtifact, source: str, store: Store) -> Part:
    total = sum(f.size for f in artifact.files)
    here = sum(f.size for f in artifact.files if store.has(f.sha256, f.size))
    return Part(artifact.name, artifact.kind, source, len(artifact.files), total, here)


def _memory(request: Request, looked: dict[str, Looked], facts: Facts | None) -> Memory | None:
    serve = request.serve
    if serve is None:
        return None
    model = looked.get(serve.model or next(iter(looked), ""))
    if model is None:
        return None
    wanted = fit.demand(serve, model.weights, model.attention)
    if request.target.accelerator == "cpu":
        cache = (serve.kv_cache_gib or 0) << 30 or wanted.cache(1) * (wanted.sequences or 1)
        needs = model.weights.total + cache + fit.RESERVE_BYTES
        return Memory(model, wanted, None, [], [], needs, facts.memory if facts else None)
    memories = facts.gpu_memory() if facts else ()
    if not memories:
        return Memory(model, wanted, None, [], fit.smallest(wanted))
    gpus = serve.tensor_parallel
    found = fit.fit(wanted, gpus, min(memories[:gpus]))
    ways = [] if found.fits else fit.ways_out(wanted, found, len(memories))
    return Memory(model, wanted, found, ways, [])
