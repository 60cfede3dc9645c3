"""Models as their publishers configure them, with true shapes of every tensor and no weights: the
files are sparse, so a model of 47 GB takes no space."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BYTES = {"BF16": 2, "F32": 4, "F8_E4M3": 1}
Shapes = Iterator[tuple[str, tuple[int, ...]]]

LLAMA_31_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
QWEN3_8B = {
    "architectures": ["Qwen3ForCausalLM"],
    "head_dim": 128,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "model_type": "qwen3",
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}
# 32 heads of 128, not of 5120 / 32 = 160: head_dim must be read.
DEVSTRAL_SMALL = {
    "architectures": ["MistralForCausalLM"],
    "head_dim": 128,
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "max_position_embeddings": 131072,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 40,
    "num_key_value_heads": 8,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 131072,
}
MISTRAL_7B_V01 = {
    "architectures": ["MistralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 32000,
}
DEEPSEEK_V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "first_k_dense_replace": 1,
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v2",
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
    "num_key_value_heads": 16,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rope_scaling": {"factor": 40, "mscale": 0.707, "type": "yarn"},
    "torch_dtype": "bfloat16",
    "v_head_dim": 128,
    "vocab_size": 102400,
}


def dense(c: dict[str, Any]) -> Shapes:
    """Llama, Mistral and Qwen 3: the names that their repositories use."""
    hidden, wide, heads = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"]
    head = c.get("head_dim") or hidden // heads
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    yield "lm_head.weight", (c["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        yield f"{layer}.self_attn.q_proj.weight", (heads * head, hidden)
        yield f"{layer}.self_attn.k_proj.weight", (c["num_key_value_heads"] * head, hidden)
        yield f"{layer}.self_attn.v_proj.weight", (c["num_key_value_heads"] * head, hidden)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, heads * head)
        if c["model_type"] == "qwen3":
            yield f"{layer}.self_attn.q_norm.weight", (head,)
            yield f"{layer}.self_attn.k_norm.weight", (head,)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        yield from _mlp(f"{layer}.mlp", hidden, wide)


def _mlp(name: str, hidden: int, wide: int) -> Shapes:
    yield f"{name}.gate_proj.weight", (wide, hidden)
    yield f"{name}.up_proj.weight", (wide, hidden)
    yield f"{name}.down_proj.weight", (hidden, wide)


def deepseek(c: dict[str, Any]) -> Shapes:
    """DeepSeek V2 without a low rank for queries, as the Lite models."""
    hidden, heads, latent = c["hidden_size"], c["num_attention_heads"], c["kv_lora_rank"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    yield "lm_head.weight", (c["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        yield f"{layer}.self_attn.q_proj.weight", (heads * (nope + rope), hidden)
        yield f"{layer}.self_attn.kv_a_proj_with_mqa.weight", (latent + rope, hidden)
        yield f"{layer}.self_attn.kv_a_layernorm.weight", (latent,)
        yield f"{layer}.self_attn.kv_b_proj.weight", (heads * (nope + value), latent)
        yield f"{layer}.self_attn.o_proj.weight", (hidden, heads * value)
        yield f"{layer}.input_layernorm.weight", (hidden,)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,)
        if i < c["first_k_dense_replace"]:
            yield from _mlp(f"{layer}.mlp", hidden, c["intermediate_size"])
            continue
        wide = c["moe_intermediate_size"]
        yield f"{layer}.mlp.gate.weight", (c["n_routed_experts"], hidden)
        yield from _mlp(f"{layer}.mlp.shared_experts", hidden, c["n_shared_experts"] * wide)
        for e in range(c["n_routed_experts"]):
            yield from _mlp(f"{layer}.mlp.experts.{e}", hidden, wide)


def write(
    folder: Path, config: dict[str, Any], shapes: Shapes, *, dtype: str = "BF16", shards: int = 1
) -> Path:
    """A folder with `config.json` and sparse shards."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = list(shapes)
    for n in range(shards):
        name = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        write_shard(folder / name, tensors[n::shards], dtype)
    return folder


def write_shard(path: Path, tensors: list[tuple[str, tuple[int, ...]]], dtype: str) -> None:
    """8 bytes of length, the header, then a hole as long as the tensors."""
    table, at = {}, 0
    for name, shape in tensors:
        size = _BYTES[dtype]
        for n in shape:
            size *= n
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table).encode()
    with open(path, "wb") as f:
        f.write(len(header).to_bytes(8, "little") + header)
        f.truncate(8 + len(header) + at)
