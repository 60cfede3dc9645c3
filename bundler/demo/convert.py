"""A GGUF of the Llama family -> a model folder as transformers and vLLM read it, without torch.

`gguf` undoes the quantisation; here the tensors get back their names and the order of rows that
llama.cpp changes, and the tokenizer is written out again from the lists in the file. Meant for the
demo's own small model, whose digest is pinned: everything is held in memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airgap import fsio
from airgap.errors import SourceError

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader

    Array = np.ndarray[Any, np.dtype[Any]]

# GGUF's name for a tensor of block N -> that of transformers.
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
# gguf-py's TokenType.CONTROL: tokens that stand for no text.
_CONTROL = 3


@dataclass(frozen=True)
class Shape:
    """What the tensors' names and order follow from."""

    heads: int
    kv_heads: int


def convert(source: Path, folder: Path, card: str) -> None:
    """Write the model of the GGUF file `source` to `folder`, which appears complete or not at all.

    `card`: the text of README.md. Raises SourceError `demo.model` when the file is of another kind.
    """
    from gguf import GGUFReader

    reader = GGUFReader(source)
    values = {name: field.contents() for name, field in reader.fields.items()}
    if (
        values.get("general.architecture") != "llama"
        or values.get("tokenizer.ggml.pre") != "smollm"
    ):
        raise _other(source, "it is no Llama with the tokenizer of SmolLM")
    shape = Shape(values["llama.attention.head_count"], values["llama.attention.head_count_kv"])
    temporary = fsio.temp_name(folder.parent)
    try:
        for name, data in _files(reader, values, shape, card):
            fsio.write(temporary / name, data)
        with fsio.disk_errors(f"writing {folder}"):
            os.rename(temporary, folder)
            fsio.fsync_dir(folder.parent)
    finally:
        fsio.remove_tree(temporary)


def _files(
    reader: GGUFReader, values: dict[str, Any], shape: Shape, card: str
) -> Iterator[tuple[str, bytes]]:
    tied = all(t.name != "output.weight" for t in reader.tensors)
    yield "README.md", card.encode()
    yield "config.json", _json(_config(values, tied))
    yield "generation_config.json", _json({"_from_model_config": True, **_special_ids(values)})
    yield "tokenizer.json", _json(_tokenizer(values))
    yield "tokenizer_config.json", _json(_tokenizer_config(values))
    yield "chat_template.jinja", values["tokenizer.chat_template"].encode()
    yield "model.safetensors", _safetensors(reader, shape)


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=2, ensure_ascii=False).encode() + b"\n"


def _special_ids(values: dict[str, Any]) -> dict[str, int]:
    return {
        f"{short}_token_id": values[f"tokenizer.ggml.{long}_token_id"]
        for short, long in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }


def _config(values: dict[str, Any], tied: bool) -> dict[str, Any]:
    head = values["llama.rope.dimension_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        **_special_ids(values),
        "dtype": "bfloat16",
        "head_dim": head,
        "hidden_act": "silu",
        "hidden_size": values["llama.embedding_length"],
        "intermediate_size": values["llama.feed_forward_length"],
        "max_position_embeddings": values["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": values["llama.attention.head_count"],
        "num_hidden_layers": values["llama.block_count"],
        "num_key_value_heads": values["llama.attention.head_count_kv"],
        # GGUF keeps it as float32: 1e-5 comes back as 9.99...e-06.
        "rms_norm_eps": float(f"{values['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {
            "rope_theta": values["llama.rope.freq_base"],
            "rope_type": "default",
        },
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": values["llama.vocab_size"],
    }


def _tokenizer(values: dict[str, Any]) -> dict[str, Any]:
    """A `tokenizers` file: byte-level BPE that splits digits, as SmolLM's is."""
    tokens, kinds = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    bytes_too = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": tokens[i], **flags, "special": True}
            for i, kind in enumerate(kinds)
            if kind == _CONTROL
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**bytes_too, "use_regex": True},
            ],
        },
        "post_processor": None,
        "decoder": {**bytes_too, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in values["tokenizer.ggml.merges"]],
        },
    }


def _tokenizer_config(values: dict[str, Any]) -> dict[str, Any]:
    tokens = values["tokenizer.ggml.tokens"]
    named = {
        f"{short}_token": tokens[values[f"tokenizer.ggml.{long}_token_id"]]
        for short, long in (
            *(("bos", "bos"), ("eos", "eos")),
            *(("pad", "padding"), ("unk", "unknown")),
        )
    }
    return {
        "add_prefix_space": False,
        **named,
        "clean_up_tokenization_spaces": False,
        "model_max_length": values["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def _safetensors(reader: GGUFReader, shape: Shape) -> bytes:
    """All tensors in bfloat16: 8 bytes of header length, the header, the bytes without holes."""
    names = {tensor.name: _name(tensor.name) for tensor in reader.tensors}
    tensors = sorted(reader.tensors, key=lambda t: names[t.name])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        # GGUF lists dimensions from the innermost, safetensors from the outermost.
        rows = [int(n) for n in reversed(tensor.shape)]
        start, end = end, end + 2 * int(tensor.n_elements)
        header[names[tensor.name]] = {"dtype": "BF16", "shape": rows, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return b"".join([head, *(_values(tensor, shape) for tensor in tensors)])


def _name(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    if stem in _TOP:
        return f"{_TOP[stem]}.{suffix}"
    block, number, part = (*stem.split("."), "", "")[:3]
    if block != "blk" or part not in _BLOCK or suffix != "weight":
        raise _other(Path(name), "a tensor of that name is not expected in a Llama")
    return f"model.layers.{number}.{_BLOCK[part]}.weight"


def _values(tensor: Any, shape: Shape) -> bytes:
    """The tensor in bfloat16, its rows in transformers' order."""
    from gguf.quants import dequantize

    values: Array = dequantize(tensor.data, tensor.tensor_type)
    if tensor.name.endswith("attn_q.weight"):
        values = unpermute(values, shape.heads)
    elif tensor.name.endswith("attn_k.weight"):
        values = unpermute(values, shape.kv_heads)
    return bfloat16(values)


def unpermute(values: Array, heads: int) -> Array:
    """Undo llama.cpp's order of the rows of q and k.

    Rotary embeddings turn pairs of rows: transformers pairs row i of a head with row i + half of
    it, llama.cpp keeps the two beside each other.
    """
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def bfloat16(values: Array) -> bytes:
    """The upper halves of float32 numbers, rounded to nearest, ties to even; little-endian."""
    import numpy as np

    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = bits + (((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF))
    halves: Array = (rounded >> np.uint32(16)).astype("<u2")
    return halves.tobytes()


def _other(what: Path, why: str) -> SourceError:
    return SourceError(
        "demo.model",
        f"{what.name} cannot be converted",
        why=why,
        do="report this; `make demo ENGINE=llama.cpp` serves the GGUF as it is",
    )
