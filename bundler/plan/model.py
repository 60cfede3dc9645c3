"""One model of a request, looked at where it lies: its files, its weights, its attention."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from airgap.events import Sink
from airgap.format.request import AdapterRequest, ModelRequest
from airgap.store import Store
from bundler.fetch import hub as hub_tree
from bundler.fetch import local
from bundler.fetch.hub_answers import Revision
from bundler.fetch.hub_api import Hub
from bundler.plan import attention, quantised, weights
from bundler.plan.attention import Attention
from bundler.plan.ranges import Allowance, HubSource, LocalSource, Source
from bundler.plan.sizes import Part
from bundler.plan.weights import Weights

_CONFIG = "config.json"


@dataclass(frozen=True)
class Looked:
    """What was found of a model without fetching it. `quantised`: by which method, as its
    configuration says; `revision`: of a repository, None for a folder."""

    part: Part
    format: str
    weights: Weights
    attention: Attention | None
    quantised: str = ""
    revision: Revision | None = None


def look(
    request: ModelRequest,
    base: Path,
    store: Store,
    sink: Sink,
    allowance: Allowance | None = None,
) -> Looked:
    """Headers and configuration only. Raises as locking does, and IntegrityError `plan.*`."""
    part, source = tree(request, base, store, sink, allowance)
    revision = source.revision if isinstance(source, HubSource) else None
    kind, files = weights.weight_files(list(source.sizes))
    if kind == "gguf":
        found = weights.of_gguf(source, files)
        return Looked(part, kind, found, attention.of_gguf(source, files[0]), "", revision)
    found = weights.of_safetensors(source, files)
    shape, method = None, ""
    if _CONFIG in source.sizes:
        size = min(source.sizes[_CONFIG], attention.MAX_CONFIG_BYTES)
        config = source.read(_CONFIG, 0, size)
        shape, method = attention.of_config(config), quantised.of_config(config)
    return Looked(part, kind, found, shape, method, revision)


def tree(
    request: ModelRequest | AdapterRequest,
    base: Path,
    store: Store,
    sink: Sink,
    allowance: Allowance | None = None,
) -> tuple[Part, Source]:
    """The files of a model or an adapter by name and size, and a way to read parts of them."""
    kind = "adapter" if isinstance(request, AdapterRequest) else "model"
    if request.repo is None:
        name, found = local.find(request, base, sink)
        sizes = {str(f.path): f.size for f in found}
        source = LocalSource({str(f.path): f.file for f in found}, sizes)
        # A local source is not downloaded, whether the store has it or not.
        part = Part(request.name, kind, name, len(found), sum(sizes.values()), sum(sizes.values()))
        return part, source
    hub = Hub.find(sink)
    formats = ("safetensors",) if kind == "adapter" else ("safetensors", "gguf")
    listed = hub_tree.listing(request, hub, sink, formats)
    sizes = {str(path): f.size for path, f in listed.files.items()}
    here = sum(f.size for f in listed.files.values() if f.sha256 and store.has(f.sha256, f.size))
    name = f"{hub.source(request.repo)} at {listed.revision.commit[:12]}"
    part = Part(request.name, kind, name, len(sizes), sum(sizes.values()), here)
    return part, HubSource(hub, listed.revision, sizes, allowance)
