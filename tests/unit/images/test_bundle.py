"""An image in a bundle is an image of an OCI layout, under its own digest, for tools of others."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields
from pathlib import Path

from airgap.events import silent
from airgap.format import oci
from airgap.format.artifacts import Image, LockedImage
from airgap.format.request import ImageRequest
from bundler.fetch import download, images
from bundler.workspace import Workspace
from tests.lab import Lab, entry
from tests.unit.images.faulty import Faulty
from tests.unit.images.maker import sha, tar_of

TAR = tar_of({"hello": b"hello" * 999})


def skopeo(*words: str) -> bytes:
    done = subprocess.run(["skopeo", *words], capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def manifest_image(lab: Lab, locked: LockedImage, workspace: Workspace) -> Image:
    """As it stands in a manifest, its bytes in the lab's store."""
    found = []
    for f in locked.files:
        data = workspace.store.blob_path(f.sha256).read_bytes()
        lab.store.add_bytes(data)
        found.append(entry(str(f.path), data))
    same = {f.name: getattr(locked, f.name) for f in fields(locked) if f.name != "files"}
    return Image(**same, files=tuple(found))


def bundle_of(workspace: Workspace, faulty: Faulty, tmp_path: Path, docker: bool) -> Path:
    own = faulty.made.image(TAR, docker=docker)
    faulty.made.index({"linux/amd64": own}, tag="1", docker=docker)
    request = ImageRequest(reference=f"{faulty.host}/team/app:1", platform="linux/amd64")
    locked = images.lock_image(request, workspace.store, silent)
    download.fetch(images.image_items(locked), workspace.store, silent)
    lab = Lab(tmp_path / "lab")
    lab.init()
    return lab.pack(lab.approve(artifacts=(manifest_image(lab, locked, workspace),)))


def test_skopeo_reads_the_image_from_the_bundle(
    workspace: Workspace, faulty: Faulty, tmp_path: Path
) -> None:
    bundle = bundle_of(workspace, faulty, tmp_path, docker=False)
    own = sha(next(d for k, d in faulty.made.manifests.values() if k == oci.OCI_MANIFEST))
    raw = skopeo("inspect", "--raw", f"oci:{bundle}:image")
    assert sha(raw) == own
    seen = json.loads(skopeo("inspect", f"oci:{bundle}:image"))
    assert (seen["Digest"], seen["Os"]) == (f"sha256:{own}", "linux")
    out = tmp_path / "copy"
    skopeo("copy", f"oci:{bundle}:image", f"dir:{out}")
    copied = json.loads((out / "manifest.json").read_bytes())
    for layer in copied["layers"]:
        blob = (out / layer["digest"].removeprefix("sha256:")).read_bytes()
        assert blob in faulty.made.blobs.values()


def test_docker_manifest_keeps_its_bytes_and_its_type(
    workspace: Workspace, faulty: Faulty, tmp_path: Path
) -> None:
    """skopeo finds only OCI manifests by name in a layout; the digest is what publishers signed, so
    the manifest is not rewritten for that (docs/decisions/0030-images.md)."""
    bundle = bundle_of(workspace, faulty, tmp_path, docker=True)
    data = next(d for k, d in faulty.made.manifests.values() if k == oci.DOCKER_MANIFEST)
    listed = json.loads((bundle / "index.json").read_bytes())["manifests"]
    one = next(m for m in listed if m["mediaType"] == oci.DOCKER_MANIFEST)
    assert one["digest"] == f"sha256:{sha(data)}"
    assert (bundle / "blobs" / "sha256" / sha(data)).read_bytes() == data
