"""Images from a registry: the bytes that the digest names, or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import SealiftError, SourceError
from airgap.events import Event, silent
from airgap.format import oci
from airgap.format.artifacts import LockedImage
from airgap.format.request import ImageRequest, Request
from airgap.format.types import Target
from bundler import moved
from bundler.fetch import download, images, job
from bundler.fetch.oci import registry as registries
from bundler.workspace import Workspace
from tests.locks import lab_lock
from tests.unit.images import faulty as faults
from tests.unit.images.faulty import Faulty, serving
from tests.unit.images.maker import Made, push, sha, tar_of

TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")
TAR = tar_of({"hello": b"#!/bin/sh\necho hello\n" * 4000})
OTHER = tar_of({"other": b"x" * 70_000})


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "_FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(job, "FIRST_PAUSE_SECONDS", 0.001)


def lock(workspace: Workspace, reference: str, platform: str = "linux/amd64") -> LockedImage:
    request = ImageRequest(reference=reference, platform=platform)
    return images.lock_image(request, workspace.store, silent)


def fetch(workspace: Workspace, image: LockedImage) -> None:
    download.fetch(images.image_items(image), workspace.store, silent)


def pull(workspace: Workspace, registry: Faulty, tag: str = "1") -> LockedImage:
    image = lock(workspace, f"{registry.host}/team/tiny:{tag}")
    fetch(workspace, image)
    return image


def blobs(workspace: Workspace) -> set[str]:
    folder = workspace.store.blobs
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


def files(image: LockedImage) -> dict[str, str]:
    return {str(f.path): f.sha256 for f in image.files}


@pytest.mark.parametrize(
    ("docker", "packing"), [(False, "gzip"), (False, "zstd"), (False, "tar"), (True, "gzip")]
)
def test_real_registry_image_of_an_index_is_pinned_with_its_raw_bytes(
    workspace: Workspace, docker_registry: str, docker: bool, packing: str
) -> None:
    made = Made()
    own = made.image(TAR, OTHER, docker=docker, packing=packing)
    arm = made.image(TAR, docker=docker, packing=packing, platform="linux/arm64")
    top = made.index({"linux/amd64": own, "linux/arm64/v8": arm}, tag="1", docker=docker)
    push(made, docker_registry, f"real/{packing}{docker}".lower())
    host = docker_registry.removeprefix("http://")
    image = lock(workspace, f"{host}/real/{packing}{docker}:1".lower())
    fetch(workspace, image)
    assert (image.digest, files(image)["index.json"]) == (own, top)
    assert image.media_type == (oci.DOCKER_MANIFEST if docker else oci.OCI_MANIFEST)
    assert [p for p in files(image) if p.startswith("layers")] == ["layers/000", "layers/001"]
    for f in image.files:
        data = workspace.store.blob_path(f.sha256).read_bytes()
        assert (sha(data), len(data)) == (f.sha256, f.size)
    assert lock(workspace, f"{host}/real/{packing}{docker}:1".lower(), "linux/arm64").digest == arm


def test_the_same_image_locks_to_the_same_bytes(workspace: Workspace, faulty: Faulty) -> None:
    own = faulty.made.image(TAR, tag="1")
    first = lock(workspace, f"{faulty.host}/team/tiny:1")
    assert lock(workspace, f"{faulty.host}/team/tiny:1") == first
    assert lock(workspace, f"{faulty.host}/team/tiny@sha256:{own}").digest == own
    assert str(Path.cwd()) not in repr(first)


def test_fetching_twice_asks_for_nothing_the_second_time(
    workspace: Workspace, faulty: Faulty
) -> None:
    faulty.made.image(TAR, OTHER, TAR, tag="1")
    image = pull(workspace, faulty)
    before = len(faulty.asked("/blobs/"))
    assert before == 3  # configuration and two layers: the one that lies there twice comes once
    fetch(workspace, image)
    assert len(faulty.asked("/blobs/")) == before


def test_token_that_ends_in_the_middle_of_a_pull_is_renewed(
    workspace: Workspace, faulty: Faulty
) -> None:
    faulty.made.image(*(tar_of({str(i): bytes([i]) * 3000}) for i in range(8)), tag="1")
    faulty.token_uses = 3
    image = pull(workspace, faulty)
    assert {f.sha256 for f in image.files} <= blobs(workspace)
    assert len(faulty.asked("/token")) >= 4


@pytest.mark.parametrize(
    "fault",
    [
        faults.status(429, Retry_After="0"),
        faults.status(503),
        faults.cut(0),
        faults.cut(1000),
    ],
)
@pytest.mark.parametrize("what", ["manifest", "layer"])
def test_registry_that_stumbles_once_still_delivers(
    workspace: Workspace, faulty: Faulty, fault: faults.Fault, what: str
) -> None:
    own = faulty.made.image(TAR, tag="1")
    layer = json.loads(faulty.made.manifests["1"][1])["layers"][0]["digest"]
    faulty.faults["/manifests/1" if what == "manifest" else layer] = [fault]
    image = pull(workspace, faulty)
    assert image.digest == own
    assert {f.sha256 for f in image.files} <= blobs(workspace)


@pytest.mark.parametrize(
    ("change", "id", "code"),
    [
        (faults.flip, "source.digest", 3),
        (lambda d: d[:-1], "source.unreachable", 6),  # it may have been the line
        (lambda d: d + b"\x00", "source.size", 3),
    ],
)
def test_layer_of_other_bytes_is_refused_and_never_kept(
    workspace: Workspace, faulty: Faulty, change: Callable[[bytes], bytes], id: str, code: int
) -> None:
    faulty.made.image(TAR, tag="1")
    layer = json.loads(faulty.made.manifests["1"][1])["layers"][0]["digest"]
    faulty.faults[layer] = [faults.other_bytes(change)] * 20
    image = lock(workspace, f"{faulty.host}/team/tiny:1")
    before = blobs(workspace)
    with pytest.raises(SealiftError) as e:
        fetch(workspace, image)
    assert (e.value.id, e.value.exit_code) == (id, code)
    assert blobs(workspace) == before


def test_a_tag_that_moved_is_told(workspace: Workspace, faulty: Faulty) -> None:
    """`sealift lock --check` asks the registry for the digest, and fetches nothing."""
    before = faulty.made.image(TAR, tag="1")
    reference = f"{faulty.host}/team/tiny:1"
    image = lock(workspace, reference)
    asked = Request(
        name="lab",
        version="1",
        target=TARGET,
        image=(ImageRequest(reference=reference, platform="linux/amd64"),),
    )
    held = {"base": workspace.home, "workspace": workspace}
    assert moved.find(asked, lab_lock(image), **held).lines == []
    after = faulty.made.image(OTHER, tag="1")
    kept = blobs(workspace)
    (found,) = moved.find(asked, lab_lock(image), **held).moved
    assert f"was sha256:{before}, is sha256:{after}" in found.text
    assert blobs(workspace) == kept
    faulty.made.image(TAR, tag="1")
    assert moved.find(asked, lab_lock(image), **held).moved == ()
    index = faulty.made.index({"linux/amd64": before}, tag="1")
    (above,) = moved.find(asked, lab_lock(image), **held).moved
    assert above.text == "new      index.json" and index
    faulty.faults["/manifests/1"] = [faults.other_bytes(lambda _: b"[]")]
    lied = moved.find(asked, lab_lock(image), **held)
    assert [u.artifact for u in lied.unanswered] == ["image"] and lied.moved == ()
    with pytest.raises(SealiftError) as e:
        moved.refuse(lied)
    assert (e.value.id, e.value.exit_code) == ("lock.incomplete", 3)


def test_other_bytes_on_the_retry_are_refused(workspace: Workspace, faulty: Faulty) -> None:
    faulty.made.image(TAR, tag="1")
    layer = json.loads(faulty.made.manifests["1"][1])["layers"][0]["digest"]
    faulty.faults[layer] = [faults.cut(500), *([faults.other_bytes(faults.flip)] * 20)]
    image = lock(workspace, f"{faulty.host}/team/tiny:1")
    with pytest.raises(SealiftError) as e:
        fetch(workspace, image)
    assert (e.value.id, e.value.exit_code) == ("source.digest", 3)
    assert layer.removeprefix("sha256:") not in blobs(workspace)


def test_blobs_on_another_host_come_without_the_token(workspace: Workspace, faulty: Faulty) -> None:
    faulty.made.image(TAR, tag="1")
    faulty.token_uses = 1000
    layer = json.loads(faulty.made.manifests["1"][1])["layers"][0]["digest"]
    with serving(Faulty(made=faulty.made)) as elsewhere:
        moved = f"http://{elsewhere.host}/v2/team/tiny/blobs/{layer}"
        faulty.faults[layer] = [faults.status(307, Location=moved)]
        image = pull(workspace, faulty)
        assert layer.removeprefix("sha256:") in blobs(workspace)
        sent = elsewhere.asked(layer)
        assert sent and all("authorization" not in headers for headers in sent)
        assert all("authorization" in h for h in faulty.asked(layer))
    assert image.digest in blobs(workspace)


Bend = Callable[[dict[str, Any]], None]


def foreign(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["urls"] = ["https://example.org/layer"]


def foreign_type(manifest: dict[str, Any]) -> None:
    kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    manifest["layers"][0]["mediaType"] = kind


def no_layers(manifest: dict[str, Any]) -> None:
    manifest["layers"] = []


def too_many(manifest: dict[str, Any]) -> None:
    manifest["layers"] = manifest["layers"] * 501


def one_more(manifest: dict[str, Any]) -> None:
    manifest["layers"] = manifest["layers"] * 2


def sha512(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["digest"] = "sha512:" + "a" * 128


def climbing(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["digest"] = "sha256:../../../etc/passwd"


def helm(manifest: dict[str, Any]) -> None:
    manifest["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"


def negative(manifest: dict[str, Any]) -> None:
    manifest["layers"][0]["size"] = -1


@pytest.mark.parametrize(
    "bend",
    [foreign, foreign_type, no_layers, too_many, one_more, sha512, climbing, helm, negative],
)
def test_manifest_that_no_image_has_is_refused(
    workspace: Workspace, faulty: Faulty, bend: Bend
) -> None:
    faulty.made.image(TAR, tag="1", change=bend)
    with pytest.raises(SealiftError) as e:
        lock(workspace, f"{faulty.host}/team/tiny:1")
    assert (e.value.id, e.value.exit_code) == ("source.image", 3)
    assert len(faulty.asked("/blobs/")) <= 1  # no layer was asked for


def test_index_that_lies_about_the_platform_is_refused(
    workspace: Workspace, faulty: Faulty
) -> None:
    arm = faulty.made.image(TAR, platform="linux/arm64")
    faulty.made.index({"linux/amd64": arm}, tag="1")
    with pytest.raises(SealiftError) as e:
        lock(workspace, f"{faulty.host}/team/tiny:1")
    assert (e.value.id, e.value.exit_code) == ("source.image", 3)
    assert "linux/arm64" in e.value.why


def test_index_without_the_platform_says_what_it_has(workspace: Workspace, faulty: Faulty) -> None:
    arm = faulty.made.image(TAR, platform="linux/arm64")
    faulty.made.index({"linux/arm64": arm}, tag="1")
    with pytest.raises(SourceError) as e:
        lock(workspace, f"{faulty.host}/team/tiny:1")
    assert e.value.id == "source.platform" and "linux/arm64" in e.value.why


def test_index_within_an_index_is_refused(workspace: Workspace, faulty: Faulty) -> None:
    own = faulty.made.image(TAR)
    inner = faulty.made.index({"linux/amd64": own})
    faulty.made.index({"linux/amd64": inner}, tag="1")
    with pytest.raises(SealiftError) as e:
        lock(workspace, f"{faulty.host}/team/tiny:1")
    assert e.value.id == "source.image" and "index" in e.value.why


def test_manifest_other_than_the_index_names_is_refused(
    workspace: Workspace, faulty: Faulty
) -> None:
    own = faulty.made.image(TAR)
    faulty.made.index({"linux/amd64": own}, tag="1")
    faulty.faults[own] = [faults.other_bytes(lambda d: d.replace(b"layers", b"Layers"))] * 9
    with pytest.raises(SealiftError) as e:
        lock(workspace, f"{faulty.host}/team/tiny:1")
    assert (e.value.id, e.value.exit_code) == ("source.digest", 3)
    assert blobs(workspace) == set()


def test_tag_that_moved_after_the_lock_changes_nothing(
    workspace: Workspace, faulty: Faulty
) -> None:
    own = faulty.made.image(TAR, tag="1")
    image = lock(workspace, f"{faulty.host}/team/tiny:1")
    faulty.made.image(OTHER, tag="1")
    fetch(workspace, image)
    assert files(image)["manifest.json"] == own and own in blobs(workspace)


def test_huge_manifest_is_refused_without_reading_it_all(
    workspace: Workspace, faulty: Faulty
) -> None:
    faulty.made.manifests["1"] = (oci.OCI_MANIFEST, b" " * (oci.MAX_MANIFEST_BYTES + 1))
    with pytest.raises(SealiftError) as e:
        lock(workspace, f"{faulty.host}/team/tiny:1")
    assert (e.value.id, e.value.exit_code) == ("source.size", 3)


def test_nothing_is_asked_over_plain_http_of_another_machine(workspace: Workspace) -> None:
    events: list[Event] = []
    request = ImageRequest(reference="registry.invalid/a/b:1", platform="linux/amd64")
    with pytest.raises(SourceError) as e:
        images.lock_image(request, workspace.store, events.append)
    assert e.value.id == "source.unreachable"
    reference = images.references.parse("registry.example/a/b:1")
    assert registries.Registry(reference, sink=silent).base == "https://registry.example"
    plain = registries.Registry(reference, insecure=True, sink=silent)
    assert plain.base == "http://registry.example"
