"""An image that holds a real program in Python, laid out as vLLM's own image for CPUs and LiteLLM's
are: Linux below, an environment that PATH leads to, a program of it as the entry point."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

_VENV = "opt/venv"
_LAYER = "application/vnd.oci.image.layer.v1.tar+zstd"
# What a root folder has and a layer must not.
_OUT = tuple(f"--exclude=./{n}" for n in ("dev/*", "proc/*", "sys/*", "run/*", "complete"))
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Recipe:
    """`rootfs`: the folder below, in which `python` is; `venv`: whose packages it gets; `entry`:
    its entry point, a program of the environment first."""

    rootfs: Path
    venv: Path
    entry: tuple[str, ...]
    python: str = "/usr/bin/python3"


def push_image(recipe: Recipe, registry: str, repository: str, scratch: Path) -> str:
    """Pushed by skopeo; returns its reference."""
    layout = scratch / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    own = _own_files(recipe, scratch / "own")
    moved = f"--transform=s,^lib,{_VENV}/lib,S"
    layers = [
        _layer(layout, *_OUT, "-C", str(recipe.rootfs), "."),
        _layer(layout, moved, "-C", str(own), ".", "-C", str(recipe.venv), "lib"),
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for _, d in layers]},
        "config": {
            "Env": [f"PATH=/{_VENV}/bin:{_PATH}", f"VIRTUAL_ENV=/{_VENV}"],
            "Entrypoint": list(recipe.entry),
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


def _own_files(recipe: Recipe, folder: Path) -> Path:
    """What makes a folder an environment of that Python, with the program as it starts there."""
    (folder / _VENV / "bin").mkdir(parents=True)
    (folder / _VENV / "bin/python3").symlink_to(recipe.python)
    program = recipe.venv / "bin" / recipe.entry[0]
    _, _, code = program.read_text().partition("\n")
    moved = folder / _VENV / "bin" / program.name
    moved.write_text(f"#!/{_VENV}/bin/python3\n{code}")
    moved.chmod(0o755)
    home = Path(recipe.python).parent
    (folder / _VENV / "pyvenv.cfg").write_text(f"home = {home}\n")
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


def own_python(folder: Path, venv: Path) -> str:
    """Put into `folder` this machine's Python and every library that it and the packages of `venv`
    load; returns the interpreter's path. FROM scratch: no registry of others is to be had in tests.
    """
    program = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    stdlib = Path(sysconfig.get_path("stdlib"))
    leave = shutil.ignore_patterns("test", "tests", "idlelib", "site-packages", "dist-packages")
    shutil.copytree(stdlib, folder / str(stdlib).lstrip("/"), ignore=leave)
    extensions = (*stdlib.glob("lib-dynload/*.so"), *venv.rglob("*.so*"))
    for path in {program, *libraries((program, *extensions))}:
        target = folder / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    return str(program)


def libraries(programs: Iterable[Path]) -> set[Path]:
    """What the loader maps for them on this machine, where it is looked for; what lies beside a
    program comes with it."""
    found: set[Path] = set()
    for program in programs:
        env = {"LD_LIBRARY_PATH": str(program.parent), "PATH": "/usr/bin:/bin"}
        argv = ["ldd", str(program)]
        said = subprocess.run(argv, capture_output=True, text=True, env=env).stdout
        found |= {Path(p) for p in re.findall(r"(/[^\s]+)\s+\(0x", said)}
    folders = {p.parent for p in programs}
    return {p for p in found if not any(p.is_relative_to(f) for f in folders)}
