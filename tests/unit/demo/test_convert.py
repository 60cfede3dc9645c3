"""GGUF to safetensors. That the demo's real model comes out as transformers would make it was
compared once with torch (docs/decisions/0016); here a small one is made, so that every number of it
is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors import deserialize
from tokenizers import Tokenizer

from airgap.errors import SourceError
from bundler.demo.convert import bfloat16, convert, unpermute

HEADS, KV_HEADS, HEAD, HIDDEN, BLOCKS, FEED = 4, 2, 8, 32, 2, 64
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
_RANDOM = np.random.default_rng(7)
Array = np.ndarray[Any, np.dtype[Any]]


def letters() -> list[str]:
    """The 256 tokens that byte-level BPE starts from."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


TOKENS = [*SPECIAL, *letters(), "he", "ll", "hell", "hello", "Ġhello"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ hello"]


def permute(values: Array, heads: int) -> Array:
    """What llama.cpp does to q and k when it makes a GGUF."""
    rows = values.shape[0] // heads // 2
    return values.reshape(heads, 2, rows, -1).swapaxes(1, 2).reshape(values.shape)


def tensors() -> dict[str, Array]:
    """By their names in transformers; halves of integers, which bfloat16 keeps exactly."""

    def some(*shape: int) -> Array:
        return (_RANDOM.integers(-9, 9, shape) / 2).astype(np.float32)

    out = {
        "model.embed_tokens.weight": some(len(TOKENS), HIDDEN),
        "model.norm.weight": some(HIDDEN),
    }
    for i in range(BLOCKS):
        block = f"model.layers.{i}"
        out |= {
            f"{block}.input_layernorm.weight": some(HIDDEN),
            f"{block}.self_attn.q_proj.weight": some(HEADS * HEAD, HIDDEN),
            f"{block}.self_attn.k_proj.weight": some(KV_HEADS * HEAD, HIDDEN),
            f"{block}.self_attn.v_proj.weight": some(KV_HEADS * HEAD, HIDDEN),
            f"{block}.self_attn.o_proj.weight": some(HIDDEN, HEADS * HEAD),
            f"{block}.post_attention_layernorm.weight": some(HIDDEN),
            f"{block}.mlp.gate_proj.weight": some(FEED, HIDDEN),
            f"{block}.mlp.up_proj.weight": some(FEED, HIDDEN),
            f"{block}.mlp.down_proj.weight": some(HIDDEN, FEED),
        }
    return out


def gguf_name(name: str) -> str:
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, BLOCKS)
    found = mapping.get_name(name, try_suffixes=(".weight",))
    assert found is not None
    return str(found)


def make(path: Path, values: dict[str, Array], arch: str = "llama", pre: str = "smollm") -> Path:
    out = gguf.GGUFWriter(path, arch)
    out.add_block_count(BLOCKS)
    out.add_context_length(128)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(FEED)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_rope_freq_base(100000.0)
    out.add_rope_dimension_count(HEAD)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(len(TOKENS))
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(TOKENS)
    out.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    out.add_token_merges(MERGES)
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)
    out.add_unk_token_id(0)
    out.add_pad_token_id(2)
    out.add_chat_template(TEMPLATE)
    for name, value in values.items():
        heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(name.split(".")[-2])
        stored = permute(value, heads) if heads else value
        out.add_tensor(gguf_name(name), stored)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Array], Path]:
    folder = tmp_path_factory.mktemp("convert")
    values = tensors()
    convert(make(folder / "m.gguf", values), folder / "model", "# A card\n")
    return values, folder / "model"


def test_every_tensor_comes_back_under_its_own_name_and_order(
    made: tuple[dict[str, Array], Path],
) -> None:
    values, folder = made
    found = dict(deserialize((folder / "model.safetensors").read_bytes()))
    assert set(found) == set(values)
    for name, expected in values.items():
        assert found[name]["dtype"] == "BF16"
        assert found[name]["shape"] == list(expected.shape)
        halves = np.frombuffer(found[name]["data"], "<u2").astype("<u4") << 16
        assert np.array_equal(halves.view("<f4").reshape(expected.shape), expected), name


def test_the_configuration_is_of_the_same_shape(made: tuple[dict[str, Array], Path]) -> None:
    config = json.loads((made[1] / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (HEADS, KV_HEADS)
    assert (config["hidden_size"], config["head_dim"]) == (HIDDEN, HEAD)
    assert config["tie_word_embeddings"] is True
    assert config["rms_norm_eps"] == 1e-5
    assert config["rope_parameters"] == {"rope_theta": 100000.0, "rope_type": "default"}
    assert config["eos_token_id"] == 2


def test_the_tokenizer_merges_splits_digits_and_knows_its_marks(
    made: tuple[dict[str, Array], Path],
) -> None:
    tokenizer = Tokenizer.from_file(str(made[1] / "tokenizer.json"))
    text = "<|im_start|>hello hello 42é<|im_end|>"
    encoded = tokenizer.encode(text)
    assert encoded.tokens[:3] == ["<|im_start|>", "hello", "Ġhello"]
    assert encoded.tokens[4:6] == ["4", "2"]
    assert encoded.ids[-1] == 2
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text
    config = json.loads((made[1] / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert (made[1] / "chat_template.jinja").read_text() == TEMPLATE


def test_quantised_weights_are_written_out(tmp_path: Path) -> None:
    values = tensors()
    name = "model.layers.0.mlp.up_proj.weight"
    packed = gguf.quants.quantize(values[name], gguf.GGMLQuantizationType.Q8_0)
    expected = gguf.quants.dequantize(packed, gguf.GGMLQuantizationType.Q8_0)
    convert(make(tmp_path / "m.gguf", {**values, name: expected}), tmp_path / "model", "")
    found = dict(deserialize((tmp_path / "model" / "model.safetensors").read_bytes()))
    assert bytes(found[name]["data"]) == bfloat16(expected)


def test_unpermute_undoes_what_llama_cpp_does() -> None:
    values = np.arange(64 * 3, dtype=np.float32).reshape(64, 3)
    for heads in (1, 2, 4, 8):
        assert np.array_equal(unpermute(permute(values, heads), heads), values)
    assert not np.array_equal(permute(values, 4), values)


def test_bfloat16_rounds_to_nearest_and_ties_to_even() -> None:
    # 1 + 2^-8 is half way between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between 1 + 2^-7 and 1 + 2^-6.
    values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-16, -2.5], np.float32)
    assert np.frombuffer(bfloat16(values), "<u2").tolist() == [
        0x3F80,
        0x3F80,
        0x3F82,
        0x3F81,
        0xC020,
    ]


@pytest.mark.parametrize(("arch", "pre"), [("gemma", "smollm"), ("llama", "llama-bpe")])
def test_another_kind_of_model_is_refused_and_nothing_is_left(
    tmp_path: Path, arch: str, pre: str
) -> None:
    source = make(tmp_path / "m.gguf", {}, arch, pre)
    with pytest.raises(SourceError, match=r"demo\.model"):
        convert(source, tmp_path / "model", "")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_a_tensor_that_a_llama_does_not_have_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make(tmp_path / "m.gguf", tensors())
    monkeypatch.delitem(convert.__globals__["_BLOCK"], "ffn_up")
    with pytest.raises(SourceError, match=r"demo\.model"):
        convert(source, tmp_path / "model", "")
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]
