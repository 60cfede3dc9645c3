"""Quantised models that a Hub really has, for one that does not fit: over a socket, by headers."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import SourceError
from bundler.demo import hub as demo_hub
from bundler.demo.hub import LocalHub
from bundler.fetch import hub_api
from bundler.fetch.hub_api import Hub
from bundler.plan import attention, quantised, variants
from tests.unit.plan import architectures as arch
from tests.unit.plan.gguf_maker import write_gguf
from tests.unit.plan.test_plan import GIB, host, plan
from tests.unit.request.test_facts import HOST

# 8 layers: 268,969,984 bytes in BF16 and 134,217,728 of cache for 32,768 tokens.
SMALL = {**arch.LLAMA_31_8B, "num_hidden_layers": 8, "intermediate_size": 8192}
SMALL |= {"vocab_size": 32_000, "hidden_size": 512}
BIG = "org/Llama"
# Of 2.5 GiB vLLM may use 2.25; 2 are the engine's own: 0.25 GiB for weights and one sequence.
GPU = 5 * GIB // 2
AWQ = {"quant_method": "awq", "bits": 4}
INT8 = {"quant_method": "compressed-tensors", "format": "int-quantized"}
FP8 = {"quant_method": "fp8"}
CPU = 'python = "3.11"\nplatform = "x86_64-manylinux_2_36"\naccelerator = "cpu"'
ESTIMATE = "has about"


class Shelf:
    """A Hub to put quantised models on."""

    def __init__(self, hub: LocalHub, folder: Path) -> None:
        self.hub, self.folder = hub, folder

    def put(
        self,
        name: str,
        method: dict[str, Any] | None,
        *,
        hidden: int = 256,
        downloads: int = 0,
        of: str = BIG,
        **more: bytes,
    ) -> str:
        """A model with a Llama's shapes of that width, whose card says what it was made of; its
        commit."""
        config = {**SMALL, "hidden_size": hidden}
        if method is not None:
            config["quantization_config"] = method
        place = arch.write(self.folder / name, config, arch.dense(config), shards=2)
        return self.add(name, place, downloads, of, more)

    def ggufs(self, name: str, sizes: dict[str, int], *, of: str = BIG, downloads: int = 0) -> str:
        """A repository of GGUF files of those sizes in bytes, with a hole for their weights."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        values = {
            "general.architecture": "llama",
            "llama.block_count": 8,
            "llama.embedding_length": 512,
            "llama.attention.head_count": 32,
            "llama.attention.head_count_kv": 8,
            "llama.context_length": 131_072,
        }
        for file, size in sizes.items():
            with open(write_gguf(place / file, values), "r+b") as f:
                f.truncate(size)
        return self.add(name, place, downloads, of, {})

    def add(self, name: str, place: Path, downloads: int, of: str, more: dict[str, bytes]) -> str:
        place.mkdir(parents=True, exist_ok=True)
        card = f"---\nbase_model: {of}\nbase_model_relation: quantized\n---\n"
        for file, data in {"README.md": card.encode(), **more}.items():
            (place / file).write_bytes(data)
        repository = self.hub.repository(name)
        repository.downloads = downloads
        return repository.add(place).id


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    with LocalHub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.repository(BIG).add(arch.write(tmp_path / "big", SMALL, arch.dense(SMALL), shards=2))
        yield Shelf(hub, tmp_path / "shelf")


def answers(
    monkeypatch: pytest.MonkeyPatch, body: Any, code: int = 200, **headers: str
) -> list[str]:
    """Let the Hub answer every search with `body`; returns how each would take it."""
    takes: list[str] = []

    def search(handler: Any, _query: object) -> None:
        takes.append(handler.headers["Accept-Encoding"])
        handler.reply(code, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)

    monkeypatch.setattr(demo_hub._HubHandler, "_search", search)
    return takes


def test_real_models_are_named_with_their_bytes_the_best_first(
    shelf: Shelf, tmp_path: Path
) -> None:
    shelf.put("a/small-awq", AWQ, hidden=128, downloads=900)
    commit = shelf.put("b/larger-int8", INT8, hidden=256, downloads=100)
    shelf.put("c/too-large", FP8, hidden=512, downloads=5000)
    shelf.put("d/of-another", AWQ, of="org/other", downloads=9000)
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU))
    assert code == 7
    found = out["variants"]["found"]
    assert [(v["repo"], v["fits"]) for v in found] == [
        ("b/larger-int8", True),
        ("a/small-awq", True),
        ("c/too-large", False),
    ]
    best = found[0]
    assert (best["revision"], best["method"]) == (commit, "compressed-tensors:int-quantized")
    files = (shelf.folder / "b/larger-int8").glob("*.safetensors")
    assert 0 < sum(f.stat().st_size for f in files) - best["weights"] < 20_000
    # 0.25 GiB less the weights, over 67,108,864 bytes of cache.
    assert best["sequences"] == (GPU * 900 // 1000 - 2 * GIB - best["weights"]) // 67_108_864 > 0
    assert found[2]["lacking"] > 0
    way = f'repo = "b/larger-int8", revision = "{commit}" fits (published by b, 100 downloads'
    assert any(w.startswith(way) for w in out["memory"]["ways-out"])
    assert not any(ESTIMATE in way for way in out["memory"]["ways-out"])
    assert not any((tmp_path / "home").rglob("*.safetensors"))
    # Of each weights file the header, and no more.
    whole = [a for a in shelf.hub.asked if a.server == "lfs"]
    assert len(whole) == 2 * 4


def test_a_stranger_does_not_come_first_by_the_size_that_it_chose(
    shelf: Shelf, tmp_path: Path
) -> None:
    """The nearest size is whatever its author likes; who made it, and how many took it, is not."""
    publisher = BIG.partition("/")[0]
    shelf.put("evil/nearest", INT8, hidden=256, downloads=3)
    shelf.put("known/quant", AWQ, hidden=128, downloads=40_000)
    shelf.put(f"{publisher}/own-awq", AWQ, hidden=64, downloads=50)
    _, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU))
    found = [(v["repo"], v["same-publisher"]) for v in out["variants"]["found"]]
    assert found == [
        (f"{publisher}/own-awq", True),
        ("known/quant", False),
        ("evil/nearest", False),
    ]
    (way,) = [w for w in out["memory"]["ways-out"] if "repo =" in w]
    assert f"{publisher}/own-awq" in way and "the same publisher, 50 downloads lately" in way


def test_a_configuration_that_is_nonsense_is_left_out(shelf: Shelf, tmp_path: Path) -> None:
    place = shelf.folder / "a/lists"
    config = {**SMALL, "layer_types": [[]] * SMALL["num_hidden_layers"], "sliding_window": 8}
    config |= {"quantization_config": {"quant_method": "awq"}}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": b"x"}
    shelf.add("a/lists", place, 9, BIG, files)
    shelf.put("b/awq", AWQ, hidden=128)
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU))
    assert code == 7 and [v["repo"] for v in out["variants"]["found"]] == ["b/awq"]
    assert [one["repo"] for one in out["variants"]["left"]] == ["a/lists"]


@pytest.mark.parametrize("kinds", [[[], {}], [7, None], "full_attention"])
def test_kinds_of_layers_that_are_no_words_say_nothing(kinds: Any) -> None:
    config = {**SMALL, "num_hidden_layers": 2, "layer_types": kinds, "sliding_window": 8}
    shape = attention.of_config(json.dumps(config).encode())
    assert shape is not None and shape.full + shape.sliding == 2


def test_on_a_cpu_no_eight_bit_floats_are_guessed(tmp_path: Path, shelf: Shelf) -> None:
    """Nobody has published one; what is guessed must be what a CPU computes."""
    # 2 GiB, 64 sequences, and room for half of the weights.
    small = replace(HOST, nvidia=None, memory=2 * GIB + 64 * 2**27 + 200 * 2**20)
    _, out, _ = plan(tmp_path, f'repo = "{BIG}"', small, target=CPU)
    guesses = [w for w in out["memory"]["ways-out"] if "a variant quantised to" in w]
    assert guesses and not any("FP8" in w for w in guesses) and shelf.hub.asked


def test_people_read_the_same(shelf: Shelf, tmp_path: Path) -> None:
    commit = shelf.put("b/int8", INT8, downloads=1234)
    shelf.put("c/exl", {"quant_method": "exl3"}, hidden=128)
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU), text=True)
    assert code == 7
    assert f"fits      variant b/int8 at {commit}: compressed-tensors:int-quantized, " in out
    assert "1 sequences of 32768 tokens fit at once; 1,234 downloads lately" in out
    assert "not c/exl: vLLM does not serve exl3" in out
    assert "what their own cards say" in out


def test_what_fits_asks_for_nothing(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("a/awq", AWQ)
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(24 * GIB))
    assert (code, out["variants"]) == (0, None)
    assert not any(a.path.startswith("/api/models?") for a in shelf.hub.asked)


def test_a_folder_has_an_estimate_and_the_hub_is_not_asked(shelf: Shelf, tmp_path: Path) -> None:
    code, out, _ = plan(tmp_path, f'path = "{tmp_path / "big"}"', host(GPU))
    assert code == 7 and out["variants"] is None and shelf.hub.asked == []
    assert any(ESTIMATE in way for way in out["memory"]["ways-out"])


def test_each_that_is_no_suggestion_is_named_with_the_reason(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("a/mlx-unsaid", {"group_size": 64, "bits": 4}, downloads=9)
    shelf.put("b/bnb", {"quant_method": "bitsandbytes"}, downloads=8)
    shelf.put("c/escape", {"quant_method": "\x1b[31mawq"}, downloads=7)
    shelf.put("d/gated", AWQ, downloads=6)
    shelf.hub.repository("d/gated").gated = True
    length = (2**40).to_bytes(8, "little")
    torn = {"model-00001-of-00002.safetensors": length + bytes(100)}
    shelf.put("e/header", AWQ, downloads=5, **torn)
    shelf.put("f/config", None, downloads=4, **{"config.json": b"[" * 100_000})
    shelf.put("g/newer", {"quant_method": "modelopt"}, downloads=3)
    older = replace(host(GPU).nvidia.gpus[0], compute_capability="7.5")  # type: ignore[union-attr]
    nvidia = replace(host(GPU).nvidia, gpus=(older,))  # type: ignore[type-var]
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU, nvidia=nvidia))
    assert code == 7 and out["variants"]["found"] == []
    left = {one["repo"]: one["why"] for one in out["variants"]["left"]}
    assert left["a/mlx-unsaid"] == "its config.json names no quantisation"
    assert left["b/bnb"] == "vLLM does not serve bitsandbytes"
    assert left["c/escape"] == "vLLM does not serve unknown"
    assert "gated" in left["d/gated"]
    assert "a header of 1099511627776 bytes" in left["e/header"]
    assert "config.json cannot be understood" in left["f/config"]
    assert left["g/newer"] == "modelopt needs compute capability 8.0"
    assert any(ESTIMATE in way for way in out["memory"]["ways-out"])


def test_headers_have_an_end(shelf: Shelf, tmp_path: Path) -> None:
    """Shards, each with a header that is allowed; together they are more than is read."""
    header = b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    header += b" " * (20 * 1024 * 1024) + b"}"
    shard = len(header).to_bytes(8, "little") + header
    place = shelf.folder / "a/padded"
    files = {f"model-{n:05}-of-00004.safetensors": shard for n in range(4)}
    shelf.add("a/padded", place, 1, BIG, {**files, "config.json": json.dumps(SMALL).encode()})
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU))
    (left,) = out["variants"]["left"]
    assert code == 7 and left["repo"] == "a/padded"
    assert "more than 67,108,864 bytes in all" in left["why"]


def test_only_the_most_downloaded_few_are_looked_into(shelf: Shelf, tmp_path: Path) -> None:
    for n in range(variants.MAX_LOOKED + 4):
        place = shelf.folder / f"a/m{n}"
        shelf.add(f"a/m{n}", place, n, BIG, {"x.safetensors": b"x"})
    _, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU))
    looked = [one["repo"] for one in out["variants"]["left"]]
    assert looked == [f"a/m{n}" for n in range(11, 3, -1)]


@pytest.mark.parametrize(
    ("code", "body", "why"),
    [
        (404, b"{}", "it answered 404: it may have no search"),
        (429, b"{}", "it answered 429"),
        (200, b"<html>", "is not understood"),
        (200, {"error": "x"}, "is not understood"),
        (200, [{"id": 7}], "is not understood"),
        (200, ["a/b"], "is not understood"),
    ],
)
def test_a_hub_without_a_search_is_one_line_and_the_plan_is_made(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, body: Any, why: str
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    answers(monkeypatch, body, code)
    with pytest.raises(SourceError) as e:
        Hub.find().quantised(BIG, "safetensors", 8)
    assert why in e.value.why
    if code == 404:
        done, out, _ = plan(tmp_path, f'repo = "{BIG}"', host(GPU), text=True)
        lines = [line for line in out.splitlines() if line.startswith("variants")]
        assert done == 7 and len(lines) == 1 and why in lines[0] and ESTIMATE in out


def test_hostile_names_are_no_suggestions(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("\x1b]0;owned\x07/x", "../../etc", "a/b/c", "a/b\nfits  x", "a/" + "b" * 5000, "")
    listed = [{"id": n, "tags": ["safetensors", 7], "downloads": -1} for n in (*names, "ok/one")]
    answers(monkeypatch, listed)
    (found,) = Hub.find().quantised(BIG, "safetensors", 40)
    assert (found.repo, found.tags, found.downloads) == ("ok/one", {"safetensors"}, 0)


def test_pages_without_end_have_one(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, [], Link=f'<{shelf.hub.endpoint}/api/models?cursor=1>; rel="next"')
    with pytest.raises(SourceError) as e:
        Hub.find().quantised(BIG, "safetensors", 40)
    assert e.value.id == "source.hub" and "more than 8 requests" in e.value.why
    assert len(shelf.hub.asked) == 8


def test_a_tree_of_empty_pages_has_an_end_too(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tree(handler: Any, *_: object) -> None:
        handler.reply_json([], {"Link": f'<{shelf.hub.endpoint}{handler.path}>; rel="next"'})

    monkeypatch.setattr(demo_hub._HubHandler, "_tree", tree)
    monkeypatch.setattr(hub_api, "_MAX_REQUESTS", 20)
    with pytest.raises(SourceError) as e:
        Hub.find().tree(BIG, shelf.hub.repository(BIG).refs["main"])
    assert e.value.id == "source.hub" and "more than 20 requests" in e.value.why
    assert len(shelf.hub.asked) == 20


def test_a_list_that_is_too_long_is_not_read(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_api, "MAX_ANSWER_BYTES", 1000)
    answers(monkeypatch, [{"id": f"a/m{n}"} for n in range(100)])
    with pytest.raises(SourceError) as e:
        Hub.find().quantised(BIG, "safetensors", 200)
    assert e.value.id == "source.hub" and "more than 1,000 bytes" in e.value.why


def test_a_packed_answer_is_not_unpacked(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes over the line could be any number in memory."""
    body = gzip.compress(json.dumps([{"id": f"a/m{n}"} for n in range(100)]).encode())
    takes = answers(monkeypatch, body, **{"Content-Encoding": "gzip"})
    with pytest.raises(SourceError) as e:
        Hub.find().quantised(BIG, "safetensors", 200)
    assert e.value.id == "source.hub" and "packed as 'gzip'" in e.value.why
    assert takes == ["identity"] and len(shelf.hub.asked) == 1


def test_the_token_does_not_follow_the_pages_elsewhere(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other = shelf.hub._servers[1].origin
    answers(monkeypatch, [], Link=f'<{other}/api/models?cursor=1>; rel="next"')
    with pytest.raises(SourceError):
        Hub.find().quantised(BIG, "safetensors", 40)
    assert [(a.server, a.token) for a in shelf.hub.asked] == [("hub", "hf_secret"), ("lfs", None)]


# --- the host's own memory, and llama.cpp


def test_on_a_cpu_only_what_it_computes_is_named(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("a/awq", AWQ, hidden=128, downloads=3)
    shelf.put("b/fp8", FP8, hidden=128, downloads=2)
    shelf.put("c/nvfp4", {**INT8, "format": "nvfp4-pack-quantized"}, hidden=128, downloads=1)
    small = replace(HOST, nvidia=None, memory=5 * GIB)
    code, out, _ = plan(tmp_path, f'repo = "{BIG}"', small, target=CPU)
    assert code == 7
    (found,) = out["variants"]["found"]
    # 64 sequences of 33,554,432 bytes, 2 GiB, and the weights.
    assert (found["repo"], found["fits"]) == ("a/awq", True)
    assert found["sequences"] == (3 * GIB - found["weights"]) // 33_554_432 >= 64
    assert {one["repo"] for one in out["variants"]["left"]} == {"b/fp8", "c/nvfp4"}
    assert "kv-cache-gib = 2 fits; more sequences wait" in out["memory"]["ways-out"]


def llama_cpp(folder: Path, source: str, memory: int) -> tuple[int, Any]:
    """Plan it for llama.cpp on a CPU."""
    small = replace(HOST, nvidia=None, memory=memory)
    code, out, _ = plan(folder, source, small, target=CPU, engine="llama.cpp")
    return code, out


def test_other_ggufs_of_the_repository_come_first(shelf: Shelf, tmp_path: Path) -> None:
    mib = 1024**2
    sizes = {"m-Q8_0.gguf": 900 * mib, "m-Q4_K_M.gguf": 400 * mib, "m-Q2_K.gguf": 200 * mib}
    commit = shelf.ggufs("q/own", {**sizes, "mmproj-F16.gguf": 5 * mib})
    split = {f"x-IQ3_M-0000{n}-of-00002.gguf": 150 * mib for n in (1, 2)}
    shelf.ggufs("r/other", {**split, "n.gguf": 600 * mib, 'x"\n.gguf': 310 * mib}, downloads=4)
    shelf.put("s/awq", AWQ, downloads=99)
    # The engine's 2 GiB, and 134,217,728 bytes of cache: max-num-seqs does not reach llama.cpp.
    memory = 2 * GIB + 128 * mib + 450 * mib
    source = 'repo = "q/own"\ninclude = ["m-Q8_0.gguf"]'
    code, out = llama_cpp(tmp_path, source, memory)
    assert code == 7
    found = [(v["repo"], *v["include"], v["method"], v["fits"]) for v in out["variants"]["found"]]
    assert found == [
        ("q/own", "m-Q4_K_M.gguf", "GGUF Q4_K_M", True),
        ("r/other", "x-IQ3_M-*-of-*.gguf", "GGUF IQ3_M", True),
    ]
    way = f'repo = "q/own", revision = "{commit}", include = ["m-Q4_K_M.gguf"] fits'
    assert any(w.startswith(f"{way} (the same publisher") for w in out["memory"]["ways-out"])
    assert out["variants"]["found"][1]["weights"] == 300 * mib


def test_without_a_search_the_repository_itself_is_looked_into(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mib = 1024**2
    shelf.ggufs("q/own", {"m-Q8_0.gguf": 900 * mib, "m-Q2_K.gguf": 200 * mib})
    answers(monkeypatch, {}, 404)
    source = 'repo = "q/own"\ninclude = ["m-Q8_0.gguf"]'
    _, out = llama_cpp(tmp_path, source, 2 * GIB + 128 * mib + 450 * mib)
    assert [v["include"] for v in out["variants"]["found"]] == [["m-Q2_K.gguf"]]
    assert "it answered 404: it may have no search" in out["variants"]["error"]


def test_a_gguf_that_is_none_is_no_suggestion(shelf: Shelf, tmp_path: Path) -> None:
    shelf.ggufs("q/own", {"m-Q8_0.gguf": 900 * 1024**2})
    shelf.add("r/torn", shelf.folder / "r/torn", 5, BIG, {"m-Q4_0.gguf": b"GGUF" + b"\xff" * 400})
    _, out = llama_cpp(tmp_path, 'repo = "q/own"\ninclude = ["m-Q8_0.gguf"]', 3 * GIB)
    assert [v["fits"] for v in out["variants"]["found"]] == [False]
    (left,) = out["variants"]["left"]
    assert left["repo"] == "r/torn" and "cannot be understood" in left["why"]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("Qwen3-8B-Q4_K_M", "GGUF Q4_K_M"),
        ("model.iq3_xxs", "GGUF IQ3_XXS"),
        ("gpt-oss-20b-mxfp4", "GGUF MXFP4"),
        ("model-BF16", "GGUF BF16"),
        ("model", "GGUF"),
    ],
)
def test_a_ggufs_name_says_how_it_is_quantised(name: str, method: str) -> None:
    assert quantised.of_gguf(name) == method
