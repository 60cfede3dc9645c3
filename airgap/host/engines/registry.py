"""The engines that this version serves."""

from __future__ import annotations

from airgap.errors import HostError
from airgap.format.manifest import Manifest
from airgap.format.types import Serve
from airgap.host.engines.interface import Engine
from airgap.host.engines.llama_cpp import LlamaCpp
from airgap.host.engines.vllm import Vllm

_ENGINES: tuple[Engine, ...] = (LlamaCpp(), Vllm())


def serving_plan(manifest: Manifest) -> Serve:
    """The manifest's serving plan. Raises HostError `host.nothing-to-serve`."""
    if manifest.serve is None:
        raise HostError(
            "host.nothing-to-serve",
            f"{manifest.name} {manifest.version} cannot be served",
            why="its approved manifest has no serving plan",
            do="add a [serve] table to the request and have it approved; the files are imported",
        )
    return manifest.serve


def engine_for(manifest: Manifest) -> Engine:
    """The engine of the manifest's serving plan.

    Raises HostError `host.nothing-to-serve`, `host.engine-unknown`.
    """
    serve = serving_plan(manifest)
    known = {e.name: e for e in _ENGINES}
    if serve.engine not in known:
        raise HostError(
            "host.engine-unknown",
            f"{manifest.name} {manifest.version} wants the engine {serve.engine}",
            why=f"this version serves {', '.join(known)}",
            do="install a newer airgap, or approve a bundle for an engine that it serves",
        )
    return known[serve.engine]
