"""Images made by hand: every byte of every document is the test's own to bend."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

from airgap.format import oci

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
PACK: dict[str, Callable[[bytes], bytes]] = {
    "tar": lambda data: data,
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": lambda data: zstandard.compress(data, 3),
}
OCI_LAYER = {
    "tar": "application/vnd.oci.image.layer.v1.tar",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
}
DOCKER_LAYER = {"gzip": "application/vnd.docker.image.rootfs.diff.tar.gzip"}


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def encode(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def tar_of(files: Mapping[str, bytes], *more: tarfile.TarInfo) -> bytes:
    """A tar of plain files, and of further headers as they are."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return out.getvalue()


@dataclass
class Made:
    """Blobs by digest, and manifests by digest or tag with their types."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def blob(self, data: bytes) -> str:
        self.blobs[sha(data)] = data
        return sha(data)

    def descriptor(self, kind: str, data: bytes, **more: Any) -> dict[str, Any]:
        digest = f"sha256:{self.blob(data)}"
        return {"mediaType": kind, "digest": digest, "size": len(data), **more}

    def manifest(self, document: dict[str, Any], tag: str | None = None) -> str:
        """Keep a manifest or an index; returns its SHA-256."""
        data = encode(document)
        kind = str(document["mediaType"])
        self.manifests[f"sha256:{sha(data)}"] = (kind, data)
        if tag:
            self.manifests[tag] = (kind, data)
        return sha(data)

    def image(
        self,
        *tars: bytes,
        tag: str | None = None,
        packing: str = "gzip",
        docker: bool = False,
        platform: str = "linux/amd64",
        config: dict[str, Any] | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> str:
        """An image of these layers; `change` bends its manifest. Returns its SHA-256."""
        os, architecture, *_ = platform.split("/")
        document = {
            "os": os,
            "architecture": architecture,
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(t)}" for t in tars]},
            **(config or {}),
        }
        kinds = DOCKER_LAYER if docker else OCI_LAYER
        layers = [self.descriptor(kinds[packing], PACK[packing](t)) for t in tars]
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.DOCKER_MANIFEST if docker else oci.OCI_MANIFEST,
            "config": self.descriptor(DOCKER_CONFIG if docker else OCI_CONFIG, encode(document)),
            "layers": layers,
        }
        if change:
            change(manifest)
        return self.manifest(manifest, tag)

    def index(
        self, entries: Mapping[str, str], *, tag: str | None = None, docker: bool = False
    ) -> str:
        """An index of `platform -> SHA-256 of a manifest`."""
        listed = []
        for platform, digest in entries.items():
            kind, data = self.manifests[f"sha256:{digest}"]
            os, architecture, *variant = platform.split("/")
            named = {"os": os, "architecture": architecture}
            named |= {"variant": variant[0]} if variant else {}
            entry = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}
            listed.append({**entry, "platform": named})
        kind = oci.DOCKER_LIST if docker else oci.OCI_INDEX
        return self.manifest({"schemaVersion": 2, "mediaType": kind, "manifests": listed}, tag)


def push(made: Made, base: str, repository: str) -> None:
    """Everything into a real registry, blobs first, indexes last."""
    for digest, data in made.blobs.items():
        start = _request("POST", f"{base}/v2/{repository}/blobs/uploads/")
        where = start.headers["Location"]
        where = where if where.startswith("http") else base + where
        sign = "&" if "?" in where else "?"
        _request("PUT", f"{where}{sign}digest=sha256:{digest}", data, "application/octet-stream")
    order = sorted(made.manifests.items(), key=lambda m: m[1][0] in oci.INDEX_TYPES)
    for name, (kind, data) in order:
        _request("PUT", f"{base}/v2/{repository}/manifests/{name}", data, kind)


def _request(method: str, url: str, data: bytes = b"", kind: str = "") -> Any:
    headers = {"Content-Type": kind} if kind else {}
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer


def layout(made: Made, folder: Path, digest: str, name: str) -> Path:
    """An OCI layout with that manifest under `name`."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for each, data in made.blobs.items():
        (blobs / each).write_bytes(data)
    kind, data = made.manifests[f"sha256:{digest}"]
    (blobs / digest).write_bytes(data)
    (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')
    entry = {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": name}
    index = {"schemaVersion": 2, "mediaType": oci.OCI_INDEX, "manifests": [entry]}
    (folder / "index.json").write_bytes(encode(index))
    return folder
