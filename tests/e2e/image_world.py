"""A small image that holds a real engine: llama-server of the wheel, and the libraries it loads,
taken from this machine. FROM scratch: no registry of others is to be had in tests. It goes through
Debian's docker-registry, and from there into a store as `sealift` fetches it."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

from airgap.events import silent
from airgap.format.artifacts import Image
from airgap.format.request import ImageRequest
from airgap.format.types import FileEntry
from airgap.store import Store
from bundler.digests import blake3_of
from bundler.fetch import download, images
from tests.e2e.venv_image import libraries
from tests.unit.images.maker import Made, push

_PROGRAM = "llama-server"
FOLDER = "/opt/engine"


@dataclass(frozen=True)
class Pulled:
    """An image and the store that has all of it."""

    image: Image
    store: Store


def pull(made: Made, registry: str, folder: Path) -> Pulled:
    """By way of a real registry: `registry` is its origin, the tag is 1."""
    push(made, registry, "team/engine")
    return fetch(f"{registry.removeprefix('http://')}/team/engine:1", folder)


def fetch(reference: str, folder: Path, name: str = "image") -> Pulled:
    """An image of a registry, as `sealift` takes it into its store."""
    store = Store(folder)
    store.prepare()
    request = ImageRequest(name=name, reference=reference, platform="linux/amd64")
    locked = images.lock_image(request, store, silent)
    download.fetch(images.image_items(locked), store, silent)
    same = {f.name: getattr(locked, f.name) for f in fields(locked) if f.name != "files"}
    files = [
        FileEntry(path=f.path, sha256=f.sha256, blake3=blake3_of(store, f.sha256), size=f.size)
        for f in locked.files
    ]
    return Pulled(Image(**same, files=tuple(files)), store)


def engine_image(wheel: Path, scratch: Path, tag: str) -> Made:
    """The image."""
    files = _engine_files(wheel, scratch)
    made = Made()
    config = {"Entrypoint": [f"{FOLDER}/{_PROGRAM}"], "Env": [f"LD_LIBRARY_PATH={FOLDER}"]}
    below = {str(p): p for p in libraries(files)}
    layers = (_tar(below), _tar({f"{FOLDER}/{f.name}": f for f in files}))
    made.image(*layers, tag=tag, config={"config": config})
    return made


def relabelled(made: Made, tag: str, new: str) -> None:
    """The image of `tag` once more under the tag `new`: another one, of the same layers."""
    manifest = json.loads(made.manifests[tag][1])
    before = manifest["config"]
    config = json.loads(made.blobs[before["digest"].removeprefix("sha256:")])
    config["config"]["Labels"] = {"version": new}
    manifest["config"] = made.descriptor(before["mediaType"], json.dumps(config).encode())
    made.manifest(manifest, new)


def _engine_files(wheel: Path, scratch: Path) -> list[Path]:
    """The folder that holds the program in the wheel, unpacked."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (program,) = [n for n in names if n.endswith(f"/{_PROGRAM}")]
        folder = program.removesuffix(_PROGRAM)
        out = []
        for name in names:
            if name.startswith(folder) and "/" not in name.removeprefix(folder):
                target = scratch / name.removeprefix(folder)
                target.write_bytes(archive.read(name))
                target.chmod(0o755)
                out.append(target)
    return out


def _tar(files: dict[str, Path]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, source in sorted(files.items()):
            data = source.resolve().read_bytes()
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
