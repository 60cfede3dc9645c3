"""`[[model]]` and `[[adapter]]` of a request -> locked artifacts, from a folder or from the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from airgap import fsio, limits
from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import Line, Sink, Warn
from airgap.format.artifacts import LockedAdapter, LockedFile, LockedModel
from airgap.format.request import AdapterRequest, ModelRequest
from airgap.store import Store
from bundler.fetch import adapter_config, hub, local
from bundler.fetch.choice import WEIGHTS
from bundler.fetch.hub_api import Hub
from bundler.fetch.options import Options
from bundler.fetch.tree import Tree, TreeRequest

ADAPTER_CONFIG = PurePosixPath("adapter_config.json")
ADAPTER_WEIGHTS = PurePosixPath("adapter_model.safetensors")


def lock_model(
    request: ModelRequest,
    base: Path,
    store: Store,
    sink: Sink,
    options: Options | None = None,
) -> LockedModel:
    """Pin every file of a model; `base` is where its relative path starts.

    Raises UsageError (`request.*`), SourceError (`source.*`), IntegrityError, DiskError.
    """
    tree = _tree(request, base, store, sink, WEIGHTS, options)
    return LockedModel(
        name=request.name,
        source=tree.source,
        revision=tree.revision,
        format=tree.format,
        publisher=_said("publisher", request.publisher, tree.publisher, sink),
        licence=_said("licence", request.licence, tree.licence, sink),
        files=tree.files,
    )


def lock_adapter(
    request: AdapterRequest,
    models: Sequence[ModelRequest],
    base: Path,
    store: Store,
    sink: Sink,
    options: Options | None = None,
) -> LockedAdapter:
    """Pin every file of a LoRA adapter and check that it belongs to one of `models`.

    Raises as `lock_model`; SourceError `source.adapter` and `source.adapter-base`.
    """
    model = _base_model(request, models)
    tree = _tree(request, base, store, sink, ("safetensors",), options)
    source = tree.source
    config = adapter_config.read(_bytes(tree, ADAPTER_CONFIG, store), source)
    _need(tree, ADAPTER_WEIGHTS)
    if config.base not in (model.repo, model.label):
        _foreign(request, model, config.base, source, sink)
    return LockedAdapter(
        name=request.name,
        source=source,
        revision=tree.revision,
        base=model.name,
        rank=config.rank,
        publisher=_said("publisher", request.publisher, tree.publisher, sink),
        licence=_said("licence", request.licence, tree.licence, sink),
        files=tree.files,
    )


def _tree(
    request: TreeRequest,
    base: Path,
    store: Store,
    sink: Sink,
    formats: Sequence[str],
    options: Options | None,
) -> Tree:
    if request.repo is None:
        tree = local.lock_tree(request, base, store, sink, formats)
    else:
        tree = hub.lock_tree(request, Hub.find(sink), store, sink, formats, options)
    size = sum(f.size for f in tree.files)
    sink(Line(_kind(request), f"{tree.source}: {len(tree.files)} files, {size:,} bytes"))
    return tree


def _kind(request: TreeRequest) -> str:
    return "adapter" if isinstance(request, AdapterRequest) else "model"


def _said(key: str, asked: str | None, found: str, sink: Sink) -> str:
    """The request's word counts; where the source says another one, a person must know."""
    if asked is None:
        return found
    if found and asked != found:
        text = f"the request says {key} {asked!r}, the source says {found!r}"
        sink(Warn(f"source.{key}", text))
    return asked


def _base_model(request: AdapterRequest, models: Sequence[ModelRequest]) -> ModelRequest:
    found = [m for m in models if request.base in (None, m.name)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(m.name for m in models) or "none"
    raise UsageError(
        "request.invalid",
        f"the adapter '{request.name}' does not say which model it is for",
        why=f"base = {request.base!r}, and the request has the models {names}"
        if request.base
        else f"the request has the models {names}",
        do="name one of them as 'base' of the adapter",
    )


def _foreign(
    request: AdapterRequest, model: ModelRequest, stated: str, source: str, sink: Sink
) -> None:
    """The adapter says that it belongs to another model than its base here."""
    have = model.repo or model.label or f"a local folder ({model.name})"
    text = f"{source} says that its base is {ascii(stated)[:200]}; here it is {have}"
    if request.base is None:
        raise SourceError(
            "source.adapter-base",
            f"the adapter '{request.name}' is for another model",
            why=text,
            do=f"take the adapter of {have}, or the model it was made for; if they are the same "
            f'weights under two names, say base = "{model.name}"',
        )
    sink(Warn("source.adapter-base", text))


def _bytes(tree: Tree, path: PurePosixPath, store: Store) -> bytes:
    """A small file of the tree, which a lock brings into the store."""
    file = _need(tree, path)
    if file.size > limits.MIB or not store.has(file.sha256, file.size):
        raise IntegrityError(
            "source.adapter",
            f"{path} of {tree.source} is no small file",
            why=f"it has {file.size:,} bytes, or is kept as an LFS file",
            do="tell the adapter's owner",
        )
    blob = store.blob_path(file.sha256)
    with fsio.disk_errors(f"reading {blob}"):
        return blob.read_bytes()


def _need(tree: Tree, path: PurePosixPath) -> LockedFile:
    for file in tree.files:
        if file.path == path:
            return file
    raise SourceError(
        "source.adapter",
        f"{tree.source} is no LoRA adapter",
        why=f"it has no {path}",
        do="name an adapter in PEFT's format with safetensors weights",
    )
