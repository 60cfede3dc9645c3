"""The demo's Hub speaks the Hub's API: the real client resolves, lists and downloads from it."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import errors
from huggingface_hub.hf_api import RepoFile

from bundler.demo.hub import LocalHub
from bundler.demo.hub_tree import LFS_BYTES
from tests.unit.fetch.hubs import TOKEN, WEIGHTS, model, write


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with LocalHub() as running:
        running.repository("org/tiny").add(model(tmp_path / "tiny"))
        yield running


def api(hub: LocalHub, token: str | bool = False) -> huggingface_hub.HfApi:
    return huggingface_hub.HfApi(endpoint=hub.endpoint, token=token)


def download(hub: LocalHub, folder: Path, **more: Any) -> Path:
    return Path(
        huggingface_hub.snapshot_download(
            "org/tiny", endpoint=hub.endpoint, cache_dir=folder, **{"token": False, **more}
        )
    )


def test_a_snapshot_has_the_bytes_of_the_folder(hub: LocalHub, tmp_path: Path) -> None:
    got = download(hub, tmp_path / "cache")
    for file in (p for p in (tmp_path / "tiny").rglob("*") if p.is_file()):
        assert (got / file.relative_to(tmp_path / "tiny")).read_bytes() == file.read_bytes()


def test_a_part_of_a_snapshot(hub: LocalHub, tmp_path: Path) -> None:
    got = download(hub, tmp_path / "cache", allow_patterns=["*.json"])
    names = sorted(p.name for p in got.rglob("*") if p.is_file())
    assert names == ["config.json", "vocab.json"]


def test_the_tree_says_what_git_and_lfs_say(hub: LocalHub) -> None:
    tree = {e.path: e for e in api(hub).list_repo_tree("org/tiny", recursive=True)}
    config, weights = tree["config.json"], tree["model.safetensors"]
    assert isinstance(config, RepoFile)
    assert isinstance(weights, RepoFile)
    # `printf '{"model_type": "llama"}' | git hash-object --stdin`
    assert config.blob_id == "230d5f4da0da586aad26ead694ea67cd15bd6df1"
    assert weights.lfs is not None
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert "tokenizer" in tree


def test_a_long_tree_comes_in_pages(hub: LocalHub, tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {f"f{i:04}": str(i) for i in range(95)}
    hub.repository("org/many").add(write(tmp_path / "many", files))
    hub.page_files = 10
    listed = [e.path for e in api(hub).list_repo_tree("org/many", recursive=True)]
    assert listed == sorted(files)
    assert sum("/tree/" in a.path for a in hub.asked) == 10


def test_branches_tags_and_pull_requests(hub: LocalHub, tmp_path: Path) -> None:
    repository = hub.repository("org/tiny")
    main = repository.refs["main"]
    pr = repository.add(model(tmp_path / "pr", **{"config.json": "{}"}), "refs/pr/3").id
    repository.refs["v1.0"] = main
    repository.tags.add("v1.0")
    assert api(hub).model_info("org/tiny", revision="refs/pr/3").sha == pr != main
    assert api(hub).model_info("org/tiny", revision=pr).sha == pr
    refs = api(hub).list_repo_refs("org/tiny")
    assert [b.name for b in refs.branches] == ["main"]
    assert [t.target_commit for t in refs.tags] == [main]


def test_the_card_is_told(hub: LocalHub) -> None:
    card = api(hub).model_info("org/tiny").card_data
    assert card is not None
    assert card.license == "apache-2.0"


def test_what_is_not_there(hub: LocalHub) -> None:
    with pytest.raises(errors.RepositoryNotFoundError):
        api(hub).model_info("org/none")
    with pytest.raises(errors.RevisionNotFoundError):
        api(hub).model_info("org/tiny", revision="v9")
    assert not api(hub).file_exists("org/tiny", "none.json")
    assert api(hub).file_exists("org/tiny", "config.json")


def test_a_gated_repository_shows_itself_but_gives_no_file(hub: LocalHub, tmp_path: Path) -> None:
    hub.repository("org/tiny").gated = True
    hub.repository("org/tiny").members = frozenset({TOKEN})
    assert api(hub).model_info("org/tiny").gated == "manual"
    for token in (False, "hf_other"):
        with pytest.raises(errors.GatedRepoError):
            api(hub, token).auth_check("org/tiny")
        with pytest.raises(errors.GatedRepoError):
            download(hub, tmp_path / "cache", token=token)
    assert (download(hub, tmp_path / "cache", token=TOKEN) / "config.json").is_file()


def test_a_private_repository_is_not_there_for_others(hub: LocalHub) -> None:
    hub.repository("org/tiny").private = True
    hub.repository("org/tiny").members = frozenset({TOKEN})
    for token in (False, "hf_other"):
        with pytest.raises(errors.RepositoryNotFoundError):
            api(hub, token).model_info("org/tiny")
    assert api(hub, TOKEN).model_info("org/tiny").private


def test_a_renamed_repository_redirects(hub: LocalHub) -> None:
    hub.repository("old/tiny").moved_to = "org/tiny"
    assert api(hub).model_info("old/tiny", revision="main").id == "org/tiny"


def test_lfs_files_lie_elsewhere_and_addresses_expire(hub: LocalHub) -> None:
    now = [1000.0]
    hub.clock = lambda: now[0]
    client = httpx2.Client(trust_env=False)
    file = f"{hub.endpoint}/org/tiny/resolve/main/model.safetensors"
    answer = client.get(file, headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.headers["x-linked-size"]) == (302, str(len(WEIGHTS)))
    there = answer.headers["location"]
    assert not there.startswith(hub.endpoint)
    assert client.get(there).content == WEIGHTS
    assert client.get(there[:-1] + "x").status_code == 403
    now[0] += hub.signed_seconds + 2
    assert client.get(there).status_code == 403


@pytest.mark.parametrize("big", [False, True])
def test_ranges_and_their_guard(hub: LocalHub, tmp_path: Path, big: bool) -> None:
    data = bytes(range(256)) * (LFS_BYTES // 256 + 1) if big else bytes(range(100))
    hub.repository("org/raw").add(write(tmp_path / "raw", {"data": data}))
    client = httpx2.Client(trust_env=False, follow_redirects=True)
    url = f"{hub.endpoint}/org/raw/resolve/main/data"
    whole = client.get(url)
    assert whole.content == data
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(data)}"
    assert client.get(url, headers={"Range": f"bytes={len(data) - 5}-"}).content == data[-5:]
    assert client.get(url, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
    guarded = {"Range": "bytes=10-19", "If-Range": whole.headers["etag"]}
    assert client.get(url, headers=guarded).status_code == 206
    guarded["If-Range"] = '"another"'
    assert client.get(url, headers=guarded).content == data


def test_it_never_leaves_the_tree(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for path in ("../secret", "%2e%2e/secret", "..%2fsecret", str(tmp_path / "secret")):
        answer = httpx2.get(f"{hub.endpoint}/org/tiny/resolve/main/{path}", trust_env=False)
        assert answer.status_code in (401, 404)
    assert hub.endpoint.startswith("http://127.0.0.1:")
    assert urllib.request.urlopen(f"{hub.endpoint}/org/tiny/resolve/main/config.json").status == 200


def test_a_search_finds_what_cards_say_the_most_downloaded_first(
    hub: LocalHub, tmp_path: Path
) -> None:
    card = "---\nbase_model: org/tiny\nbase_model_relation: quantized\n---\n"
    for name, downloads in (("a/few", 3), ("b/many", 9), ("c/hidden", 99)):
        repository = hub.repository(name)
        repository.downloads = downloads
        repository.add(model(tmp_path / name, **{"README.md": card}))
    hub.repository("c/hidden").private = True
    tags = ["base_model:quantized:org/tiny", "safetensors"]
    found = list(api(hub).list_models(filter=tags, sort="downloads", expand=["downloads", "tags"]))
    assert [(m.id, m.downloads) for m in found] == [("b/many", 9), ("a/few", 3)]
    assert set(tags) <= set(found[0].tags or ())
    assert [m.id for m in api(hub).list_models(filter=tags, sort="downloads", limit=1)] == [
        "b/many"
    ]
    assert list(api(hub).list_models(filter=["gguf"])) == []
    assert api(hub).model_info("a/few").tags == ["safetensors", "base_model:org/tiny", tags[0]]
