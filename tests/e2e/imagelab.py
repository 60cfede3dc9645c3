"""A host that serves from an image: HostLab, with the image's blobs in its store."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from airgap.format.manifest import Manifest
from airgap.format.types import Check
from airgap.host.images import tool
from airgap.store import Store
from tests.e2e.hostlab import HostLab
from tests.e2e.image_world import Pulled

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
    """`pulled`: the image that it serves from; its blobs are copied, so that one may be damaged."""

    pulled: Pulled = None  # type: ignore[assignment]

    def put_image(self, pulled: Pulled) -> None:
        store = Store(self.paths.store)
        store.prepare()
        for f in pulled.image.files:
            blob = store.blob_path(f.sha256)
            if not blob.exists():
                blob.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(pulled.store.blob_path(f.sha256), blob)
                blob.chmod(0o444)

    def image_manifest(self, version: str, *checks: Check) -> Manifest:
        self.put_image(self.pulled)
        found = self.manifest(version, *checks)
        serve = replace(found.serve, runtime="image")  # type: ignore[arg-type]
        models = tuple(a for a in found.artifacts if a.kind == "model")
        return replace(found, artifacts=(self.pulled.image, *models), serve=serve)

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
            podman = tool.choose(self.paths)
            assert isinstance(podman, tool.Podman)
            shutil.rmtree(podman.volatile())

    @property
    def layer(self) -> Path:
        """The file of the image's largest layer in the store."""
        files = (f for f in self.pulled.image.files if f.path.parts[0] == "layers")
        return Store(self.paths.store).blob_path(max(files, key=lambda f: f.size).sha256)
