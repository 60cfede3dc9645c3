"""When a model does not fit: which quantised ones the Hub really has, and whether they do.

They are suggestions and no more. That one is made of the model is what its own card says; its name
is its author's text. Nothing is locked, and of weights only the headers are read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from airgap import limits
from airgap.engines import registry as engines
from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Line, Sink, silent
from airgap.format.facts import Facts
from airgap.format.request import ModelRequest
from airgap.format.types import Serve
from airgap.store import Store
from bundler.fetch.choice import stem
from bundler.fetch.hub_answers import Listed
from bundler.fetch.hub_api import Hub
from bundler.plan import attention, memory, quantised, weights
from bundler.plan.memory import Machine, Memory
from bundler.plan.model import Looked, look
from bundler.plan.ranges import Allowance, HubSource
from bundler.plan.sizes import Part

# Repositories that are looked into, each with a few requests and its headers.
MAX_LOOKED = 8
# Names that a search brings: many are in formats that the engine does not read.
_MAX_LISTED = 40
# Headers of one repository, in bytes in all: those of 600B in 160 shards have some 20 MB.
_HEADER_BYTES = 64 * limits.MIB
# Models whose sizes differ by less than this part of the original count as one size.
_STEPS = 20
# Tags of formats that no engine of ours reads, though their files end in .safetensors.
_FOREIGN = frozenset(("mlx", "exl2", "exl3", "onnx", "openvino", "bitsandbytes"))
_GGUF = re.compile(r"[\w.+/-]{1,200}\.gguf", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Variant:
    """One of them. `method`: how it is quantised; `include`: which GGUF of several is meant,
    as a request says it."""

    repo: str
    commit: str
    method: str
    include: str
    downloads: int
    memory: Memory
    same_publisher: bool = False

    @property
    def publisher(self) -> str:
        """Whose repository it is."""
        return self.repo.partition("/")[0]


@dataclass(frozen=True)
class Left:
    """A repository that is no suggestion, and why."""

    repo: str
    why: str


@dataclass(frozen=True)
class Suggested:
    """`variants`: the best first. `error`: why the Hub was not asked to the end."""

    variants: tuple[Variant, ...]
    left: tuple[Left, ...]
    error: str = ""

    @property
    def best(self) -> Variant | None:
        """The first that fits."""
        return next((v for v in self.variants if v.memory.fits), None)


@dataclass(frozen=True)
class _Search:
    """What does not fit, and where."""

    serve: Serve
    asked: Memory
    machine: Machine
    capability: int | None
    base: Path
    store: Store
    hub: Hub


def suggest(
    serve: Serve,
    asked: Memory,
    machine: Machine,
    facts: Facts | None,
    base: Path,
    store: Store,
    sink: Sink = silent,
) -> Suggested:
    """Ask the Hub for quantised forms of the model of `asked`, and look at the most downloaded.

    A source that does not answer is in the result: a plan does not fail for want of suggestions.
    """
    gpus = facts.nvidia.gpus[: serve.tensor_parallel] if facts and facts.nvidia else ()
    tenths = [int(g.compute_capability.replace(".", "")) for g in gpus]
    weakest = None if machine.cpu else min(tenths, default=0)
    search = _Search(serve, asked, machine, weakest, base, store, Hub.find())
    listed, error = _listed(search)
    assert asked.model.revision is not None  # noqa: S101 - the caller looked
    publisher = asked.model.revision.repo.partition("/")[0]
    found: list[Variant] = []
    left: list[Left] = []
    for one in listed:
        sink(Line("look at", f"{one.repo}, perhaps a quantised form that fits"))
        seen = _seen(search, one)
        if isinstance(seen, Variant):
            found.append(replace(seen, same_publisher=seen.publisher == publisher))
        else:
            left.append(seen)
    found.sort(key=lambda v: _rank(search, v))
    return Suggested(tuple(found), tuple(left), error)


def _seen(search: _Search, one: Listed) -> Variant | Left:
    try:
        return _look(search, one)
    except (SourceError, IntegrityError, UsageError) as e:
        return Left(one.repo, f"{e.what}: {e.why}")


def _rank(search: _Search, variant: Variant) -> tuple[bool, bool, int, int]:
    """Those that fit first; of them those of the model's own publisher; then what many fetched, by
    orders of magnitude; then the nearest to the original, which loses least. How large it is, is
    its author's to choose, so that decides last."""
    whole = max(1, search.asked.model.weights.total)
    size = variant.memory.model.weights.total * _STEPS // whole
    fits = variant.memory.fits
    return (
        not fits,
        not variant.same_publisher,
        -len(str(variant.downloads)),
        -size if fits else size,
    )


def _listed(search: _Search) -> tuple[list[Listed], str]:
    """Candidates, the most downloaded first, and why there may be more. Of a GGUF its own
    repository has others, and so has the model that it was made of."""
    revision = search.asked.model.revision
    assert revision is not None  # noqa: S101 - the caller looked
    gguf = _reads_gguf(search.serve)
    found = [Listed(revision.repo, frozenset(), 0)] if gguf else []
    error = ""
    try:
        for base in (revision.repo, *revision.quantised_from[:1]):
            for one in search.hub.quantised(base, "gguf" if gguf else "safetensors", _MAX_LISTED):
                known = {revision.repo, *(f.repo for f in found)}
                if one.repo not in known and not one.tags & _FOREIGN:
                    found.append(one)
    except SourceError as e:
        error = f"{e.what}: {e.why}"
    return found[:MAX_LOOKED], error


def _reads_gguf(serve: Serve) -> bool:
    return "gguf" in engines.named(serve.engine).formats


def _look(search: _Search, one: Listed) -> Variant | Left:
    """Raises as locking does; Left where the engine does not serve it."""
    if _reads_gguf(search.serve):
        return _look_gguf(search, one)
    request = ModelRequest(repo=one.repo)
    model = look(request, search.base, search.store, silent, Allowance(_HEADER_BYTES))
    why = engines.named(search.serve.engine).refuses(model.quantised, search.capability)
    if why or model.format != "safetensors" or model.revision is None:
        return Left(one.repo, why or "its weights are no safetensors")
    found = memory.reckon(search.serve, model, search.machine)
    return Variant(one.repo, model.revision.commit, model.quantised, "", one.downloads, found)


def _look_gguf(search: _Search, one: Listed) -> Variant | Left:
    """The largest GGUF of a repository that fits, else its smallest."""
    revision = search.hub.resolve(one.repo, "main")
    sizes = {f.path: f.size for f in search.hub.tree(one.repo, revision.commit)}
    source = HubSource(search.hub, revision, sizes, Allowance(_HEADER_BYTES))
    groups = sorted(_groups(sizes), key=lambda names: -sum(sizes[n] for n in names))
    if not groups:
        return Left(one.repo, "it has no GGUF files")

    def at(names: list[str], shape: attention.Attention | None) -> Memory:
        total = sum(sizes[n] for n in names)
        part = Part(one.repo, "model", search.hub.source(one.repo), len(names), total)
        how = quantised.of_gguf(stem(names[0]))
        found = weights.of_gguf(source, names)
        model = Looked(part, "gguf", found, shape, how, revision)
        return memory.reckon(search.serve, model, search.machine)

    names = _best(groups, lambda names: at(names, search.asked.model.attention).fits)
    # Its own header decides: a card may say that it is made of anything.
    found = at(names, attention.of_gguf(source, names[0]))
    method = found.model.quantised
    include = names[0] if len(names) == 1 else f"{stem(names[0])}-*-of-*.gguf"
    return Variant(one.repo, revision.commit, method, include, one.downloads, found)


def _best(groups: list[list[str]], fits: Callable[[list[str]], bool]) -> list[str]:
    return next((names for names in groups if fits(names)), groups[-1])


def _groups(sizes: dict[str, int]) -> Iterator[list[str]]:
    """GGUF files by model: one, or the parts of one. A projector for pictures is no model, and a
    name that a request cannot say as it is no suggestion."""
    stems: dict[str, list[str]] = {}
    for name in sorted(sizes):
        path = PurePosixPath(name)
        if _GGUF.fullmatch(name) and not re.match(r"mmproj|imatrix", path.name, re.I):
            stems.setdefault(stem(name), []).append(name)
    yield from stems.values()
