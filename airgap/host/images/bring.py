"""From the store into the container engine: pulled by digest, and the digest looked at again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from airgap import fsio
from airgap.errors import HostError, IntegrityError
from airgap.events import Line, Sink
from airgap.format import oci
from airgap.format.artifacts import Image
from airgap.host.images import registry, tool
from airgap.host.images.tool import Seen, Tool
from airgap.host.paths import HostPaths
from airgap.store import Store, hash_file


def engine(paths: HostPaths) -> Tool:
    """The container engine that this host has. Raises HostError `host.no-containers`."""
    return tool.choose(paths)


def bring(paths: HostPaths, image: Image, sink: Sink) -> str:
    """Have the image in the container engine; returns who runs it, for the record.

    Idempotent. Raises IntegrityError `store.damaged` when a blob of it is not what it was,
    `image.digest` when the engine has something else; HostError `host.image-pull`.
    """
    engine = tool.choose(paths)
    already = " already" if find(engine, image, paths) is not None else ""
    if not already:
        with registry.serving(Store(paths.store), image) as reference:
            _take_in(paths, image, engine, reference)
    what = f"{image.name} sha256:{image.digest[:16]}"
    sink(Line("image", f"{what} is in {engine.name}{already}"))
    return f"{engine.name} image sha256:{image.digest}"


def _take_in(paths: HostPaths, image: Image, engine: Tool, reference: str) -> None:
    """Pull, and note that the image is not whole until all of it is on the disk.

    A container engine notes a layer before the layer's files are on the disk, and takes what it
    noted for whole: where the power failed, that may be empty files. So what a pull left that did
    not come to its end becomes part of this image, is removed with it, and comes afresh.
    """
    mark = _unsettled(paths, image)
    doubtful = any(mark.parent.glob("[0-9a-f]*"))
    fsio.make_dirs(mark.parent, 0o700)
    fsio.write(mark, b"")
    id = _pull(paths, image, engine, reference)
    if doubtful:
        for words in engine.removal(id):
            answer = tool.ask(engine, *words)
            if answer.code != 0:
                raise _refused(engine, image, tool.tail(answer))
        _pull(paths, image, engine, reference)
    os.sync()  # no container engine does
    with fsio.disk_errors(f"removing {mark}"):
        mark.unlink()
        fsio.fsync_dir(mark.parent)


def _unsettled(paths: HostPaths, image: Image) -> Path:
    """There while the image is being taken in."""
    return paths.containers / "unsettled" / image.digest


def _pull(paths: HostPaths, image: Image, engine: Tool, reference: str) -> str:
    answer = tool.pull(engine, reference)
    if answer.code != 0:
        _check_blobs(Store(paths.store), image)
        raise _refused(engine, image, tool.tail(answer))
    return check(tool.inspect(engine, reference), engine, image, paths)


def find(engine: Tool, image: Image, paths: HostPaths) -> str | None:
    """The engine's id of exactly this image, or None. One that was not taken in to the end may lack
    files that the engine believes it has."""
    if _unsettled(paths, image).exists():
        return None
    for name in (config_digest(paths, image), image.digest):
        seen = tool.inspect(engine, name)
        if seen is not None and _is(seen, image, paths):
            return seen.id
    return None


def check(seen: Seen | None, engine: Tool, image: Image, paths: HostPaths) -> str:
    """The engine's id of the image. Raises IntegrityError `image.digest` when it is another."""
    if seen is not None and _is(seen, image, paths):
        return seen.id
    have = ", ".join(sorted(seen.digests)) or "no digest" if seen else "no image"
    raise IntegrityError(
        "image.digest",
        f"{engine.name} does not have the approved image {image.name}",
        why=f"it shows {have[:300]}, approved is sha256:{image.digest}",
        do=f"remove what `{engine.name} images` shows of it and install the bundle again",
    )


def _is(seen: Seen, image: Image, paths: HostPaths) -> bool:
    """The id is the configuration's digest (podman, docker), or the manifest's (docker on
    containerd), and the manifest's digest is the approved one."""
    ids = (config_digest(paths, image), image.digest)
    return seen.id in ids and f"sha256:{image.digest}" in seen.digests


def discard_unused(paths: HostPaths, needed: Iterable[Image]) -> None:
    """Have podman forget every image but these: its storage under the root is ours alone. docker's
    is shared with others, and left as it is. What a container still uses stays for the next time.
    """
    if not (paths.containers / "storage").is_dir() or not tool.is_here("podman"):
        return
    engine = tool.choose(paths)
    ids = {f.sha256 for image in needed for f in image.files if str(f.path) == "config.json"}
    for id in tool.ask(engine, "images", "--quiet", "--no-trunc").out.split():
        if id.removeprefix("sha256:") not in ids:
            tool.ask(engine, "rmi", id)


def config_digest(paths: HostPaths, image: Image) -> str:
    """SHA-256 of the image's configuration, from its manifest. The manifest is hashed again."""
    path = Store(paths.store).blob_path(image.digest)
    if not path.is_file() or hash_file(path).sha256 != image.digest:
        raise _damaged("manifest.json")
    return oci.read_manifest(path.read_bytes(), image.media_type).config.sha256


def _check_blobs(store: Store, image: Image) -> None:
    """A pull failed: say which file of ours is to blame, if one is."""
    for f in image.files:
        path = store.blob_path(f.sha256)
        if not store.has(f.sha256, f.size) or hash_file(path).sha256 != f.sha256:
            raise _damaged(str(f.path))


def _damaged(name: str) -> IntegrityError:
    return IntegrityError(
        "store.damaged",
        f"the image's file {name} in the store is not what was imported",
        why="its bytes do not have the approved SHA-256, or it is gone",
        do="install from the medium again: what is damaged is replaced",
    )


def _refused(engine: Tool, image: Image, said: str) -> HostError:
    return HostError(
        "host.image-pull",
        f"{engine.name} did not take the image {image.name}",
        why=said,
        do=f"correct what {engine.name} names above, then run the same command again",
    )
