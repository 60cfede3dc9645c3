"""The engines that this version serves: a further one is a file beside this and a line here."""

from __future__ import annotations

import difflib

from airgap.engines.interface import Engine
from airgap.engines.llama_cpp import LlamaCpp
from airgap.engines.vllm import Vllm
from airgap.errors import FormatError, HostError
from airgap.format.manifest import Manifest
from airgap.format.types import Serve

_ENGINES: tuple[Engine, ...] = (LlamaCpp(), Vllm())


def find(name: str) -> Engine | None:
    """The engine of that name, or None: a newer version's manifest may name another."""
    return next((e for e in _ENGINES if e.name == name), None)


def named(name: str) -> Engine:
    """The engine that a request means. Raises FormatError when there is none of that name."""
    engine = find(name)
    if engine is None:
        known = [e.name for e in _ENGINES]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        why = f"'{name}' is not one of {', '.join(known)}{hint}"
        raise FormatError("format.value", "serve.engine", why)
    return engine


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
    engine = find(serve.engine)
    if engine is None:
        raise HostError(
            "host.engine-unknown",
            f"{manifest.name} {manifest.version} wants the engine {serve.engine}",
            why=f"this version serves {', '.join(e.name for e in _ENGINES)}",
            do="install a newer airgap, or approve a bundle for an engine that it serves",
        )
    return engine
