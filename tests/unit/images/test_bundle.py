"""An image in a bundle is an image of an OCI layout, under its own digest, for tools of others."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from airgap import verify
from airgap.errors import PolicyError, SealiftError
from airgap.events import silent
from airgap.format import oci
from airgap.format.artifacts import Image, LockedImage
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.request import ImageRequest
from bundler.cli import cli
from bundler.fetch import download, images
from bundler.workspace import Workspace
from tests.lab import T0, Lab, entry
from tests.unit.images.faulty import Faulty
from tests.unit.images.maker import Made, push, sha, tar_of
from tests.unit.images.signed import (
    BOM,
    KEY,
    SLSA,
    STRANGER,
    Private,
    attest,
    envelope,
    look,
    pem,
    pull,
    sign,
    statement,
)

TAR = tar_of({"hello": b"hello" * 999})
REQUEST = """\
name = "lab"
version = "1"
summary = "A test"

[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "cpu"

[[image]]
name = "gate"
reference = "{reference}"
platform = "linux/amd64"
"""


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


def test_hosts_judge_what_is_attested_from_the_bundle_by_their_own_policy(
    workspace: Workspace, faulty: Faulty, tmp_path: Path
) -> None:
    """Step 10: from what officers approved, with no registry and none of the builder's policy."""
    own = faulty.made.image(TAR, tag="1")
    faulty.made.manifest(sign(faulty.made, own), f"sha256-{own}.sig")
    attested = attest(faulty.made, envelope(statement(own, SLSA)))
    faulty.made.manifest(attested, f"sha256-{own}.att")
    locked = pull(workspace, faulty.host)
    found, _ = look(workspace, locked, pem(KEY), pem(STRANGER))
    lab = Lab(tmp_path / "lab")
    lab.init()
    image = manifest_image(lab, locked, workspace)
    bundle = lab.pack(lab.approve(artifacts=(image,), findings=found))
    (target,) = (bundle / "trust" / "targets").rglob("*.manifest.json")
    manifest = Manifest.from_bytes(target.read_bytes())
    blobs = bundle / "blobs" / "sha256"
    verify.check_evidence(asked(KEY, SLSA), manifest, blobs, T0)
    for policy, id in (
        (asked(KEY, SLSA, BOM), "policy.image-unattested"),
        (asked(STRANGER, SLSA), "policy.image-unsigned"),
    ):
        with pytest.raises(PolicyError) as e:
            verify.check_evidence(policy, manifest, blobs, T0)
        assert (e.value.id, e.value.exit_code) == (id, 5)


def asked(key: Private, *predicates: str) -> Policy:
    return Policy(image_keys=(pem(key),), image_attestations=predicates)


def test_the_builders_gate_refuses_an_image_without_what_the_policy_asks_for(
    workspace: Workspace, docker_registry: str, tmp_path: Path
) -> None:
    """`sealift lock`, `fetch`, `scan`, `review` as people run them, before Debian's registry."""
    made = Made()
    own = made.image(TAR, tag="1")
    made.manifest(sign(made, own), f"sha256-{own}.sig")
    made.manifest(attest(made, envelope(statement(own, SLSA))), f"sha256-{own}.att")
    push(made, docker_registry, "team/gate")
    request = tmp_path / "lab.toml"
    host = docker_registry.removeprefix("http://")
    request.write_text(REQUEST.format(reference=f"{host}/team/gate:1"))
    phrase = tmp_path / "phrase"
    phrase.write_text("a long passphrase of the tests\n")

    def sealift(*words: str) -> SealiftError | None:
        done = CliRunner().invoke(cli, ["--home", str(workspace.home), *words])
        assert done.exception is None or isinstance(done.exception, SealiftError), done.output
        return done.exception

    assert sealift("trust", "init", "--solo", "--passphrase-file", str(phrase)) is None
    assert sealift("lock", str(request)) is sealift("fetch", str(request)) is None
    for predicates, refused in (((SLSA, BOM), True), ((SLSA,), False)):
        policy = tmp_path / "policy.toml"
        key = json.dumps(pem(KEY))
        policy.write_text(f"image-keys = [{key}]\nimage-attestations = {json.dumps(predicates)}\n")
        assert sealift("scan", str(request), "--policy", str(policy)) is None
        error = sealift("review", str(request))
        if refused:
            assert error is not None and error.exit_code == 5
            assert error.why.startswith(
                f"policy.image-unattested: image gate has no attestation {BOM}"
            )
        else:
            assert error is None
            reports = list(workspace.home.rglob("packet/REVIEW.html"))
            assert reports
            assert all(f"attests <code>{SLSA}</code>" in r.read_text("utf-8") for r in reports)


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
