"""Weights and cache of real architectures against numbers worked out by hand (in the comments)."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import IntegrityError
from airgap.events import silent
from airgap.format.request import ModelRequest
from airgap.format.types import Serve
from airgap.store import Store
from bundler.plan import fit
from bundler.plan.attention import Attention, of_config
from bundler.plan.model import Looked, look
from tests.unit.plan import architectures as arch
from tests.unit.plan.gguf_maker import write_gguf

GIB = 1024**3


def see(folder: Path, place: Path) -> Looked:
    return look(ModelRequest(path=str(place)), folder, Store(folder / "store"), silent)


def config(**values: Any) -> Attention:
    found = of_config(json.dumps(values).encode())
    assert found is not None
    return found


# Parameters, as the publishers state them, in BF16 (2 bytes each):
#   Llama 3.1 8B      8,030,261,248
#   Qwen3 8B          8,190,735,360
#   Devstral Small   23,572,403,200
#   Mistral 7B        7,241,732,096
#   DeepSeek-V2-Lite 15,706,484,224
# Cache of one token, all layers, 2 bytes a number:
#   Llama 3.1 8B      32 layers x 8 heads x (128 + 128) x 2 = 131,072
#   Qwen3 8B          36 layers x 8 heads x (128 + 128) x 2 = 147,456
#   Devstral Small    40 layers x 8 heads x (128 + 128) x 2 = 163,840
#   Mistral 7B        32 layers x 8 heads x (128 + 128) x 2 = 131,072
#   DeepSeek-V2-Lite  27 layers x (512 + 64) x 2            =  31,104
MODELS = [
    ("llama", arch.LLAMA_31_8B, arch.dense, 8_030_261_248, 131_072),
    ("qwen", arch.QWEN3_8B, arch.dense, 8_190_735_360, 147_456),
    ("devstral", arch.DEVSTRAL_SMALL, arch.dense, 23_572_403_200, 163_840),
    ("mistral", arch.MISTRAL_7B_V01, arch.dense, 7_241_732_096, 131_072),
    ("deepseek", arch.DEEPSEEK_V2_LITE, arch.deepseek, 15_706_484_224, 31_104),
]


@pytest.mark.parametrize(("name", "config", "shapes", "parameters", "per_token"), MODELS)
def test_weights_and_cache_are_those_worked_out_by_hand(
    tmp_path: Path, name: str, config: Any, shapes: Any, parameters: int, per_token: int
) -> None:
    place = arch.write(tmp_path / name, config, shapes(config), shards=4)
    found = see(tmp_path, place)
    assert found.format == "safetensors"
    assert found.weights.total == parameters * 2
    assert found.weights.dtype == "BF16"
    assert found.attention is not None
    assert found.attention.bytes_per_sequence(1, 2) == per_token
    assert found.attention.bytes_per_sequence(1000, 4) == per_token * 2000


def test_a_sliding_window_bounds_the_cache() -> None:
    # Mistral 7B v0.1 at 32,768 tokens keeps 4,096: 4,096 x 131,072 = 536,870,912 (0.5 GiB, not 4).
    a = config(**arch.MISTRAL_7B_V01)
    assert a.bytes_per_sequence(32_768, 2) == 536_870_912
    assert a.bytes_per_sequence(1_000, 2) == 131_072_000
    # gpt-oss-20b: 12 layers see 128 tokens, 12 see all; 8 heads of 64 + 64, 2 bytes: 2,048 a layer.
    kinds = ["sliding_attention", "full_attention"] * 12
    b = config(
        hidden_size=2880,
        num_attention_heads=64,
        num_hidden_layers=24,
        num_key_value_heads=8,
        head_dim=64,
        sliding_window=128,
        layer_types=kinds,
    )
    assert b.bytes_per_sequence(8_192, 2) == 12 * 2_048 * (8_192 + 128)
    # Gemma 3 27B: 62 layers, every sixth (10 of them) sees all, 52 see 1,024 tokens.
    c = config(
        text_config={
            "hidden_size": 5376,
            "num_attention_heads": 32,
            "num_hidden_layers": 62,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "sliding_window": 1024,
            "sliding_window_pattern": 6,
        }
    )
    assert c.bytes_per_sequence(32_768, 2) == 16 * 256 * 2 * (10 * 32_768 + 52 * 1_024)


def test_layers_without_attention_keep_no_cache() -> None:
    # Qwen3-Next: of 48 layers 12 have attention, 2 heads of 256 + 256.
    kinds = (["linear_attention"] * 3 + ["full_attention"]) * 12
    a = config(
        hidden_size=2048,
        num_attention_heads=16,
        num_hidden_layers=48,
        num_key_value_heads=2,
        head_dim=256,
        layer_types=kinds,
    )
    assert a.bytes_per_sequence(1, 2) == 12 * 2 * 512 * 2


def test_tensor_parallel_divides_heads_but_not_a_latent_cache(tmp_path: Path) -> None:
    llama = config(**arch.LLAMA_31_8B)
    assert llama.bytes_per_sequence(1, 2, gpus=4) == 131_072 // 4
    # 16 GPUs, 8 heads: each keeps one.
    assert llama.bytes_per_sequence(1, 2, gpus=16) == 131_072 // 8
    deepseek = config(**arch.DEEPSEEK_V2_LITE)
    assert deepseek.bytes_per_sequence(1, 2, gpus=8) == 31_104


def test_tensor_parallel_divides_weights_but_for_what_each_gpu_keeps(tmp_path: Path) -> None:
    place = arch.write(tmp_path / "m", arch.LLAMA_31_8B, arch.dense(arch.LLAMA_31_8B))
    w = see(tmp_path, place).weights
    # Norms: 65 vectors of 4,096 x 2 bytes. Keys and values: 32 x 2 x 1,024 x 4,096 x 2 bytes.
    assert w.whole == 65 * 4_096 * 2
    assert w.key_value == 32 * 2 * 1_024 * 4_096 * 2
    assert w.per_gpu(2, 8) == w.shared // 2 + w.key_value // 2 + w.whole
    assert w.per_gpu(16, 8) == w.shared // 16 + w.key_value // 8 + w.whole
    place = arch.write(tmp_path / "d", arch.DEEPSEEK_V2_LITE, arch.deepseek(arch.DEEPSEEK_V2_LITE))
    d = see(tmp_path, place).weights
    # kv_a_proj 27 x 576 x 2,048, gates 26 x 64 x 2,048, norms 55 x 2,048 + 27 x 512; 2 bytes each.
    assert d.whole == 2 * (27 * 576 * 2_048 + 26 * 64 * 2_048 + 55 * 2_048 + 27 * 512)


def llama(tmp_path: Path, **serve: Any) -> fit.Demand:
    place = arch.write(tmp_path / "m", arch.LLAMA_31_8B, arch.dense(arch.LLAMA_31_8B))
    found = see(tmp_path, place)
    return fit.demand(Serve(engine="vllm", name="m", **serve), found.weights, found.attention)


def test_llama_on_gpus_of_several_sizes(tmp_path: Path) -> None:
    wanted = llama(tmp_path, max_model_len=32_768, gpu_memory="0.90")
    # Cache of 32,768 tokens: 32,768 x 131,072 = 4 GiB.
    assert wanted.cache(1) == 4 * GIB
    # 24 GiB x 0.9 = 23,192,823,398; less 16,060,522,496 and 2 GiB: 4,984,817,254, one sequence.
    small = fit.fit(wanted, 1, 24 * GIB)
    assert (small.usable, small.fits, small.sequences) == (23_192_823_398, True, 1)
    # 16 GiB x 0.9 = 15,461,882,265 is less than the weights alone.
    none = fit.fit(wanted, 1, 16 * GIB)
    assert not none.fits and none.sequences == 0
    assert none.lacking == 16_060_522_496 + 2 * GIB + 4 * GIB - 15_461_882_265
    # 80 GiB x 0.9 = 77,309,411,328; less weights and 2 GiB: 59,101,405,184; 13 x 4 GiB.
    assert fit.fit(wanted, 1, 80 * GIB).sequences == 13


def test_ways_out_fit_when_they_are_taken(tmp_path: Path) -> None:
    wanted = llama(tmp_path, max_model_len=65_536, gpu_memory="0.90")
    found = fit.fit(wanted, 1, 24 * GIB)
    assert not found.fits
    shorter, parallel = fit.ways_out(wanted, found, available=1)
    room = found.usable - found.reserve - found.cache_per_sequence
    (quantised,) = fit.estimate(wanted.weights, found.weights, room)
    tokens = int(shorter.split()[2])
    assert fit.fit(dataclasses.replace(wanted, tokens=tokens), 1, 24 * GIB).fits
    assert tokens % 1024 == 0 and tokens > 32_768
    assert parallel == "tensor-parallel = 2 fits (the host has 1)"
    assert fit.fit(wanted, 2, 24 * GIB).fits
    # FP8: 8.35 GB, with 8.59 GB of cache and 2.15 GB for the engine 19.1 of 23.2 GB.
    assert "FP8 has about 8,351,471,697 bytes" in quantised
    assert "4 bits" in fit.estimate(wanted.weights, found.weights, 5 * GIB)[0]
    assert fit.estimate(wanted.weights, found.weights, 4 * GIB) == []
    eight = dataclasses.replace(wanted.weights, dtype="F8_E4M3")
    assert fit.estimate(eight, found.weights, room) == []
    assert not any("tensor-parallel" in w for w in fit.ways_out(wanted, fit.fit(wanted, 8, GIB), 8))


def test_without_a_context_length_the_models_own_counts(tmp_path: Path) -> None:
    assert llama(tmp_path).tokens == 131_072
    assert fit.smallest(llama(tmp_path, max_model_len=4096))[0].startswith("1 x 24 GB: ")


def test_gguf_is_read_from_its_header(tmp_path: Path) -> None:
    place = write_gguf(
        tmp_path / "m.gguf",
        {
            "general.architecture": "llama",
            "llama.block_count": 30,
            "llama.embedding_length": 576,
            "llama.attention.head_count": 9,
            "llama.attention.head_count_kv": 3,
            "llama.context_length": 8192,
        },
        vocabulary=50_000,
    )
    found = see(tmp_path, place)
    assert found.format == "gguf" and found.weights.total == place.stat().st_size
    # SmolLM2-135M: 30 layers x 3 heads x (64 + 64) x 2 bytes.
    assert found.attention is not None
    assert found.attention.bytes_per_sequence(1, 2) == 23_040
    assert found.attention.longest == 8192


def test_gguf_with_heads_of_its_own_and_by_layer(tmp_path: Path) -> None:
    place = write_gguf(
        tmp_path / "m.gguf",
        {
            "general.architecture": "qwen3",
            "qwen3.block_count": 4,
            "qwen3.embedding_length": 1024,
            "qwen3.attention.head_count": 16,
            "qwen3.attention.head_count_kv": [8, 8, 4, 8],
            "qwen3.attention.key_length": 128,
            "qwen3.attention.value_length": 128,
        },
    )
    found = see(tmp_path, place).attention
    assert found is not None and found.bytes_per_sequence(1, 2) == 4 * 8 * 256 * 2


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4,
        (2**40).to_bytes(8, "little") + b"{}",
        (16).to_bytes(8, "little") + b'{"a":{"dtype":1}',
        (2).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_damaged_header_is_refused(tmp_path: Path, data: bytes) -> None:
    place = tmp_path / "m"
    place.mkdir()
    (place / "model.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError) as e:
        see(tmp_path, place)
    assert (e.value.id, e.value.exit_code) == ("plan.header", 3)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"x"'])
def test_a_configuration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError, match=r"plan\.header"):
        of_config(text.encode())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"num_hidden_layers": -1, "num_attention_heads": 8, "hidden_size": 64},
        {"num_hidden_layers": "32", "num_attention_heads": 8, "hidden_size": 64},
        {"num_hidden_layers": 2**60, "num_attention_heads": 8, "hidden_size": 64},
    ],
)
def test_an_architecture_that_is_not_known_has_no_cache(values: dict[str, Any]) -> None:
    assert of_config(json.dumps(values).encode()) is None


def test_files_without_a_single_tensor_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    header = b'{"__metadata__":{}}'
    data = len(header).to_bytes(8, "little") + header
    (tmp_path / "m" / "model.safetensors").write_bytes(data)
    with pytest.raises(IntegrityError) as e:
        see(tmp_path, tmp_path / "m")
    assert e.value.id == "plan.header" and "names no tensor" in e.value.why
