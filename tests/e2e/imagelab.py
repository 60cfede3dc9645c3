"""A host that serves from an image: HostLab, with the image's blobs in its store."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from airgap.format import oci
from airgap.format.artifacts import Image
from airgap.format.manifest import Manifest
from airgap.format.types import Check, FileEntry
from airgap.host.images import tool
from airgap.store import Store
from tests.e2e.hostlab import HostLab
from tests.unit.images.maker import Made

_CLONE_NEWNET = 0x40000000
_OWN_NETWORK = "/proc/thread-self/ns/net"


@contextlib.contextmanager
def no_network() -> Iterator[None]:
    """This thread, and all that it starts, on a host that has loopback and nothing else. Root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(_OWN_NETWORK, "rb") as before:
        assert libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNET) == 0


@dataclass
class ImageLab(HostLab):
    """`made` holds one image, whose manifest's SHA-256 is `digest`."""

    made: Made = None  # type: ignore[assignment]
    digest: str = ""

    def image(self) -> Image:
        kind, data = self.made.manifests[f"sha256:{self.digest}"]
        manifest = oci.read_manifest(data, kind)
        blobs = {"config.json": self.made.blobs[manifest.config.sha256], "manifest.json": data}
        for i, layer in enumerate(manifest.layers):
            blobs[f"layers/{i:03}"] = self.made.blobs[layer.sha256]
        return Image(
            name="engine",
            reference="registry.example/team/engine:1",
            platform="linux/amd64",
            digest=self.digest,
            media_type=kind,
            files=tuple(self._file(p, d) for p, d in sorted(blobs.items())),
        )

    def _file(self, path: str, data: bytes) -> FileEntry:
        store = Store(self.paths.store)
        store.prepare()
        found = store.add_bytes(data)
        name = PurePosixPath(path)
        return FileEntry(path=name, sha256=found.sha256, blake3=found.sha256, size=found.size)

    def image_manifest(self, version: str, *checks: Check) -> Manifest:
        found = self.manifest(version, *checks)
        serve = replace(found.serve, runtime="image")  # type: ignore[arg-type]
        models = tuple(a for a in found.artifacts if a.kind == "model")
        return replace(found, artifacts=(self.image(), *models), serve=serve)

    def podman(self, *words: str) -> tool.Answer:
        """A question to the very podman storage that this root has."""
        return tool.ask(tool.choose(self.paths), *words)

    def containers(self) -> list[str]:
        return self.podman("ps", "--all", "--quiet").out.split()

    def clean(self) -> None:
        """Container storage holds mounts and files of other owners: its own tool removes it."""
        if (self.root / "containers").exists():
            self.podman("rm", "--all", "--force")
            self.podman("rmi", "--all", "--force")

    @property
    def layer(self) -> Path:
        """The file of the image's largest layer in the store."""
        files = (f for f in self.image().files if f.path.parts[0] == "layers")
        return Store(self.paths.store).blob_path(max(files, key=lambda f: f.size).sha256)
