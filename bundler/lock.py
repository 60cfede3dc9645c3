"""Request -> lock: every choice made, every file pinned by SHA-256 and size.

A local source is hashed here, and taken into the store in the same pass. What an index or a Hub
serves is pinned by what it says and fetched later.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from airgap import fsio
from airgap.engines import registry as engines
from airgap.errors import FormatError, SourceError, UsageError
from airgap.events import Sink, silent
from airgap.format.artifacts import LockedArtifact, LockedModel
from airgap.format.lock import Lock
from airgap.format.request import Request
from bundler.fetch.images import lock_image
from bundler.fetch.models import lock_adapter, lock_model
from bundler.fetch.oci.reference import parse as parse_reference
from bundler.fetch.options import Options
from bundler.fetch.plain import check_files, lock_files
from bundler.fetch.wheels import check_requirements, lock_wheels
from bundler.workspace import Workspace

DAY_SECONDS = 86_400


def make_lock(
    request: Request,
    *,
    base: Path,
    workspace: Workspace,
    now: int,
    release: int = 1,
    sink: Sink = silent,
    options: Options | None = None,
) -> Lock:
    """Lock `request` and write it to its build's `lock.json`.

    `base` is the request's folder (relative paths start there), `now` is `created` in UTC seconds,
    `release` counts where the request does not say. Raises UsageError (`request.*`), SourceError
    (`source.*`), IntegrityError, DiskError; a failed lock leaves an older `lock.json` as it was.
    """
    check(request)
    artifacts = _artifacts(request, base, workspace, sink, options)
    _check_engine(request, artifacts)
    lock = Lock(
        request=hashlib.sha256(request.to_bytes()).hexdigest(),
        name=request.name,
        version=request.version,
        summary=request.summary,
        release=release if request.release is None else request.release,
        created=now,
        not_after=now + request.valid_days * DAY_SECONDS,
        audience=request.audience,
        handling=request.handling,
        target=request.target,
        artifacts=tuple(sorted(artifacts, key=lambda a: a.name)),
        serve=request.serve,
        waivers=request.waive,
    )
    fsio.write(workspace.build(request.name, request.version).lock, lock.to_bytes())
    return lock


def check(request: Request) -> None:
    """What can be said before anything is read: sources of this version, a plan that fits."""
    check_files(request.file)
    for image in request.image:
        parse_reference(image.reference)
    _check_plan(request)
    _check_expectations(request)
    for wheels in request.wheels:
        check_requirements(wheels)


def _check_plan(request: Request) -> None:
    """The serving plan names artifacts that the request has."""
    serve = request.serve
    if serve is None:
        return
    _check_named("model", serve.model, [m.name for m in request.model])
    if serve.runtime == "image":
        _check_named("image", serve.image, [i.name for i in request.image])
    else:
        _check_named("wheels", serve.wheels, [w.name for w in request.wheels])
    if serve.gateway is not None and serve.gateway.image is not None:
        _check_named("image", serve.gateway.image, [i.name for i in request.image], ".gateway")
    elif serve.gateway is not None:
        _check_named("wheels", serve.gateway.wheels, [w.name for w in request.wheels], ".gateway")


def _check_expectations(request: Request) -> None:
    """The host would find out only after it started the engine."""
    for check in request.serve.check if request.serve else ():
        try:
            re.compile(check.expect)
        except re.error as e:
            raise UsageError(
                "request.invalid",
                f"serve.check: {check.expect!r} is not a regular expression",
                why=str(e),
                do="correct 'expect'; write it in single quotes so that TOML keeps backslashes",
            ) from e


def _check_named(kind: str, name: str | None, names: list[str], where: str = "") -> None:
    if len([n for n in names if name in (None, n)]) == 1:
        return
    if name is not None:
        why = f"serve{where}.{kind} = '{name}', and the request has {', '.join(names) or 'none'}"
    else:
        why = f"the request has {len(names)} [[{kind}]], so serve.{kind} must name one"
    if not names:
        why = f"the request has no [[{kind}]]"
    raise UsageError(
        "request.invalid",
        "the serving plan does not fit the request",
        why=why,
        do=f"add a [[{kind}]] table, or name the right one in [serve{where}]",
    )


def _artifacts(
    request: Request, base: Path, workspace: Workspace, sink: Sink, options: Options | None
) -> list[LockedArtifact]:
    """Wheels first: an index that is down should show before large weights are read."""
    artifacts: list[LockedArtifact] = []
    store = workspace.store
    try:
        for wheels in request.wheels:
            artifacts.append(lock_wheels(wheels, request.target, base, workspace, sink, options))
        artifacts += lock_files(request.file, store, sink, options)
        for image in request.image:
            artifacts.append(lock_image(image, store, sink, options))
        for model in request.model:
            artifacts.append(lock_model(model, base, store, sink, options))
        for adapter in request.adapter:
            artifacts.append(lock_adapter(adapter, request.model, base, store, sink, options))
    except FormatError as e:
        raise _unfit(e) from e
    return artifacts


def _check_engine(request: Request, artifacts: list[LockedArtifact]) -> None:
    serve = request.serve
    if serve is None:
        return
    formats = engines.named(serve.engine).formats
    for artifact in artifacts:
        wanted = isinstance(artifact, LockedModel) and serve.model in (None, artifact.name)
        if not wanted or not isinstance(artifact, LockedModel):
            continue
        if artifact.format not in formats:
            raise UsageError(
                "request.engine",
                f"{serve.engine} cannot serve the model '{artifact.name}'",
                why=f"its weights are {artifact.format}",
                do=f"choose another engine, or a model in another format: {', '.join(formats)}",
            )


def _unfit(e: FormatError) -> SourceError:
    """A source whose names cannot travel (two that differ only in case, for example)."""
    return SourceError(
        "source.unfit",
        "the source cannot be locked as it is",
        why=f"{e.where}: {e.why}" if e.where else e.why,
        do="rename or exclude those files, then lock again",
    )
