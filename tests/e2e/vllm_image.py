"""An image that holds the real vLLM, laid out as vLLM's own image for CPUs is: Debian below, an
environment in /opt/venv that PATH leads to, `vllm serve` as its entry point."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import zstandard

_VENV = "opt/venv"
_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
# What a root folder has and a layer must not.
_OUT = tuple(f"--exclude=./{n}" for n in ("dev/*", "proc/*", "sys/*", "run/*", "complete"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def push_image(rootfs: Path, venv: Path, registry: str, repository: str, scratch: Path) -> str:
    """Made of `rootfs` (a Debian with Python) and the packages of `venv`; pushed by skopeo.
    Returns its reference."""
    layout = scratch / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    own = _own_files(scratch / "own")
    moved = f"--transform=s,^lib,{_VENV}/lib,S"
    layers = [
        _layer(layout, *_OUT, "-C", str(rootfs), "."),
        _layer(layout, moved, "-C", str(own), ".", "-C", str(venv), "lib"),
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for _, d in layers]},
        "config": {
            "Env": [f"PATH=/{_VENV}/bin:{_PATH}", f"VIRTUAL_ENV=/{_VENV}"],
            "Entrypoint": ["vllm", "serve"],
        },
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(layout, config, "application/vnd.oci.image.config.v1+json"),
        "layers": [told for told, _ in layers],
    }
    top = _blob(layout, manifest, manifest["mediaType"])
    top["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    reference = f"{registry.removeprefix('http://')}/{repository}:1"
    words = ["--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:1"]
    subprocess.run(["skopeo", "copy", "--quiet", *words, f"docker://{reference}"], check=True)
    return reference


def _own_files(folder: Path) -> Path:
    """What makes a folder an environment of Debian's Python."""
    (folder / _VENV / "bin").mkdir(parents=True)
    (folder / _VENV / "bin/python3").symlink_to("/usr/bin/python3")
    (folder / _VENV / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return folder


def _layer(layout: Path, *words: str) -> tuple[dict[str, Any], str]:
    """(descriptor, diff id) of a layer of what tar takes; streamed, for it has gigabytes."""
    argv = ["tar", "--create", "--owner=0", "--group=0", "--numeric-owner", "--sort=name", *words]
    diff, packed, size = hashlib.sha256(), hashlib.sha256(), 0
    target = layout / "blobs/sha256/new"
    with (
        subprocess.Popen(argv, stdout=subprocess.PIPE) as tar,
        open(target, "wb") as out,
    ):
        assert tar.stdout is not None
        squeeze = zstandard.ZstdCompressor(level=1).compressobj()
        while data := tar.stdout.read(1 << 20):
            diff.update(data)
            piece = squeeze.compress(data)
            packed.update(piece)
            size += out.write(piece)
        piece = squeeze.flush()
        packed.update(piece)
        size += out.write(piece)
    assert tar.returncode == 0
    target.rename(target.with_name(packed.hexdigest()))
    digest = f"sha256:{packed.hexdigest()}"
    return {"mediaType": _LAYER, "digest": digest, "size": size}, diff.hexdigest()


def _blob(layout: Path, document: dict[str, Any], media_type: str) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (layout / "blobs/sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
