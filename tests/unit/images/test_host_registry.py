"""The isolated host's registry of one image: what a container engine may ask, and nothing else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pytest

from airgap.errors import HostError, IntegrityError
from airgap.events import silent
from airgap.format import oci
from airgap.format.artifacts import Image
from airgap.format.types import FileEntry
from airgap.host.images import bring, registry, tool
from airgap.host.images.tool import Seen
from airgap.host.paths import HostPaths
from airgap.store import Store
from tests.unit.images.maker import Made, sha, tar_of

TAR = tar_of({"hello": os.urandom(300_000)})


@dataclass
class Served:
    base: str
    reference: str
    store: Store
    image: Image
    made: Made


def put_image(store: Store, made: Made, digest: str) -> Image:
    kind, data = made.manifests[f"sha256:{digest}"]
    manifest = oci.read_manifest(data, kind)
    blobs = {"config.json": made.blobs[manifest.config.sha256], "manifest.json": data}
    blobs |= {f"layers/{i:03}": made.blobs[x.sha256] for i, x in enumerate(manifest.layers)}
    store.prepare()
    files = []
    for path, content in sorted(blobs.items()):
        d = store.add_bytes(content)
        files.append(
            FileEntry(path=PurePosixPath(path), sha256=d.sha256, blake3=d.sha256, size=d.size)
        )
    return Image(
        name="engine",
        reference="registry.example/engine:1",
        platform="linux/amd64",
        digest=digest,
        media_type=kind,
        files=tuple(files),
    )


@pytest.fixture(params=[False, True], ids=["oci", "docker"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    made = Made()
    store = HostPaths(tmp_path / "host")
    kept = Store(store.store)
    image = put_image(kept, made, made.image(TAR, docker=request.param))
    with registry.serving(kept, image) as reference:
        yield Served(f"http://{reference.split('/')[0]}", reference, kept, image, made)


def get(url: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as e:
        return e.code, dict(e.headers), e.read()


def test_skopeo_copies_the_image_byte_for_byte(served: Served, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    words = ["skopeo", "copy", "--src-tls-verify=false", f"docker://{served.reference}"]
    done = subprocess.run([*words, f"dir:{out}"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert sha((out / "manifest.json").read_bytes()) == served.image.digest
    for f in served.image.files:
        if f.path.parts[0] == "layers":
            assert sha((out / f.sha256).read_bytes()) == f.sha256


def test_parts_of_a_blob_are_given(served: Served) -> None:
    layer = max(served.image.files, key=lambda f: f.size)
    url = f"{served.base}/v2/airgap/blobs/sha256:{layer.sha256}"
    whole = served.store.blob_path(layer.sha256).read_bytes()
    code, headers, body = get(url)
    assert (code, body, headers["Docker-Content-Digest"]) == (200, whole, f"sha256:{layer.sha256}")
    code, headers, body = get(url, Range="bytes=100-")
    assert (code, body) == (206, whole[100:])
    assert headers["Content-Range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    assert get(url, Range="bytes=5-9")[2] == whole[5:10]
    assert get(url, Range=f"bytes={len(whole)}-")[0] == 416


@pytest.mark.parametrize(
    "path",
    [
        "/v2/airgap/manifests/latest",
        "/v2/airgap/manifests/sha256:" + "0" * 64,
        "/v2/airgap/tags/list",
        "/v2/_catalog",
        "/v2/airgap/blobs/sha256:../../../../etc/passwd",
        "/v2/airgap/blobs/sha256:OTHER",
        "/v2/airgap/blobs/uploads/",
        "/",
    ],
)
def test_nothing_else_is_given(served: Served, path: str) -> None:
    other = served.store.add_bytes(b"a blob of another artifact").sha256
    code, _, body = get(served.base + path.replace("OTHER", other))
    assert (code, body) == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_can_be_written(served: Served, method: str) -> None:
    before = sorted(os.listdir(served.store.blobs))
    url = f"{served.base}/v2/airgap/blobs/uploads/"
    request = urllib.request.Request(url, data=b"x", method=method)
    with pytest.raises(urllib.error.HTTPError) as e:
        urllib.request.urlopen(request, timeout=10)
    assert e.value.code == 501
    assert sorted(os.listdir(served.store.blobs)) == before


def test_tls_hello_is_answered_in_plain_http(served: Served) -> None:
    host, port = served.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100))
        assert client.recv(100).startswith(b"HTTP/1.1 400 ")


def test_it_listens_on_loopback_and_ends_with_the_pull(served: Served) -> None:
    with registry.serving(served.store, served.image) as reference:
        address = reference.split("/")[0]
        assert address.startswith("127.0.0.1:")
        assert get(f"http://{address}/v2/")[0] == 200
    with pytest.raises(urllib.error.URLError):
        get(f"http://{address}/v2/")


@dataclass
class Fake:
    """An engine that says what the test wants; `pulls` counts."""

    seen: dict[str, object] | None
    folder: Path
    pull_code: int = 0
    name: str = "podman"

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin"}

    def command(self, *words: str) -> tuple[str, ...]:
        if words[:2] == ("image", "inspect"):
            script = "cat" if self.seen is not None else "exit 125"
            text = json.dumps([self.seen])
            return ("/bin/sh", "-c", f"printf %s '{text}'" if self.seen else script)
        return ("/bin/sh", "-c", f"touch {self.folder}/pulled; exit {self.pull_code}")

    def pull_words(self, reference: str) -> tuple[str, ...]:
        return ("pull", reference)

    def run_words(self) -> tuple[str, ...]:
        return ()

    def removal(self, id: str) -> tuple[tuple[str, ...], ...]:
        return ()


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path / "host")


def an_image(paths: HostPaths) -> tuple[Image, str]:
    made = Made()
    image = put_image(Store(paths.store), made, made.image(TAR))
    return image, bring.config_digest(paths, image)


@pytest.mark.parametrize("wrong", ["digest", "id", "both"])
def test_image_that_the_engine_reports_with_another_digest_is_refused(
    paths: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    image, config = an_image(paths)
    seen = {"Id": config, "Digest": f"sha256:{image.digest}"}
    if wrong in ("id", "both"):
        seen["Id"] = "a" * 64
    if wrong in ("digest", "both"):
        seen["Digest"] = "sha256:" + "b" * 64
    monkeypatch.setattr(tool, "choose", lambda _paths: Fake(seen, tmp_path))
    with pytest.raises(IntegrityError) as e:
        bring.bring(paths, image, silent)
    assert (e.value.id, e.value.exit_code) == ("image.digest", 3)


def test_image_that_is_there_already_is_not_pulled_again(
    paths: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, config = an_image(paths)
    seen = {"Id": f"sha256:{config}", "RepoDigests": [f"127.0.0.1:1/airgap@sha256:{image.digest}"]}
    monkeypatch.setattr(tool, "choose", lambda _paths: Fake(seen, tmp_path))
    assert bring.bring(paths, image, silent) == f"podman image sha256:{image.digest}"
    assert not (tmp_path / "pulled").exists()


def test_pull_that_fails_names_the_engines_own_words(
    paths: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = an_image(paths)
    monkeypatch.setattr(tool, "choose", lambda _paths: Fake(None, tmp_path, pull_code=7))
    with pytest.raises(HostError) as e:
        bring.bring(paths, image, silent)
    assert (e.value.id, e.value.exit_code) == ("host.image-pull", 7)


def test_manifest_changed_in_the_store_is_refused(paths: HostPaths) -> None:
    image, _ = an_image(paths)
    blob = Store(paths.store).blob_path(image.digest)
    os.chmod(blob, 0o644)
    blob.write_bytes(blob.read_bytes().replace(b"layers", b"Layers"))
    with pytest.raises(IntegrityError) as e:
        bring.config_digest(paths, image)
    assert (e.value.id, e.value.exit_code) == ("store.damaged", 3)


def test_host_without_a_container_engine_is_said(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airgap.environment.SYSTEM_PATH", "/nonexistent")
    with pytest.raises(HostError) as e:
        tool.choose(paths)
    assert (e.value.id, e.value.exit_code) == ("host.no-containers", 7)


def test_digest_as_docker_says_it_counts(paths: HostPaths) -> None:
    image, config = an_image(paths)
    fake = Fake(None, Path("/"))
    by_config = Seen(config, frozenset([f"sha256:{image.digest}"]))
    by_manifest = Seen(image.digest, frozenset([f"sha256:{image.digest}"]))
    assert bring.check(by_config, fake, image, paths) == config
    assert bring.check(by_manifest, fake, image, paths) == image.digest


class PowerLoss(Exception):
    """Nothing after this is done."""


@dataclass
class Podman(Fake):
    """Notes an image at once; its files are torn when the power fails before a sync."""

    noted: bool = False
    files: str = ""
    asked: list[str] = field(default_factory=list)

    def ask(self, _tool: object, *words: str, seconds: float = 0) -> tool.Answer:
        self.asked.append(words[0])
        if words[0] == "pull" and not self.noted:
            self.noted, self.files = True, "in the page cache"
        elif words[0] == "rmi":
            self.noted, self.files = False, ""
        elif words[0] == "image":
            there = self.noted and self.seen is not None
            return tool.Answer(0 if there else 125, json.dumps([self.seen]), "")
        return tool.Answer(0, "", "")

    def removal(self, id: str) -> tuple[tuple[str, ...], ...]:
        return tool.Podman("podman", HostPaths(self.folder)).removal(id)


@pytest.fixture
def podman(
    paths: HostPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Podman, Image]:
    image, config = an_image(paths)
    made = Podman({"Id": config, "Digest": f"sha256:{image.digest}"}, tmp_path)
    monkeypatch.setattr(tool, "choose", lambda _paths: made)
    monkeypatch.setattr(tool, "ask", made.ask)
    return made, image


def test_image_is_on_the_disk_before_it_counts(
    paths: HostPaths, podman: tuple[Podman, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, image = podman
    monkeypatch.setattr(os, "sync", lambda: setattr(made, "files", "on the disk"))
    bring.bring(paths, image, silent)
    assert made.files == "on the disk"
    assert bring.find(made, image, paths) is not None


def test_image_whose_pull_lost_its_power_is_pulled_afresh_and_not_run(
    paths: HostPaths, podman: tuple[Podman, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, image = podman

    def fails() -> None:
        made.files = "torn"
        raise PowerLoss

    monkeypatch.setattr(os, "sync", fails)
    with pytest.raises(PowerLoss):
        bring.bring(paths, image, silent)
    assert made.noted and bring.find(made, image, paths) is None
    monkeypatch.setattr(os, "sync", lambda: None)
    bring.bring(paths, image, silent)
    assert made.files == "in the page cache", "podman was believed that the image is whole"
    made.asked.clear()
    bring.bring(paths, image, silent)
    assert "pull" not in made.asked


def test_image_whose_doubtful_layers_cannot_be_removed_is_not_taken_for_whole(
    paths: HostPaths, podman: tuple[Podman, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what another image's pull left: the two may share a layer."""
    made, image = podman
    other = paths.containers / "unsettled" / ("a" * 64)
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.setattr(made, "removal", lambda _id: (("rmi-in-use",),))
    refused = tool.Answer(2, "", "image is in use")
    plain = made.ask
    monkeypatch.setattr(
        tool, "ask", lambda t, *w, **k: refused if w[0] == "rmi-in-use" else plain(t, *w, **k)
    )
    with pytest.raises(HostError) as e:
        bring.bring(paths, image, silent)
    assert (e.value.id, e.value.why) == ("host.image-pull", "image is in use")
    assert bring.find(made, image, paths) is None
