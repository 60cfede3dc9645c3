"""Small stand-in repositories: the real architectures with random weights, made by transformers.

Run by a Python that has torch and transformers (the one of the engine's own wheels), never by the
test process itself:

    python make.py KIND FOLDER [KIND FOLDER ...]

Each is what its publisher's repository looks like in names and formats: config.json, safetensors
with an index where there are shards, tokenizer.json with its chat template, a model card.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers as t
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_TEXT = Path(__file__).read_text("utf-8").splitlines()
_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_VOCABULARY = 512
_SHAPE = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "torch_dtype": "float32",
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
# Llama with its linear layers in 8 bits, and the same numbers as floats, for to compare with.
_W8A8, _OF_W8A8 = "llama-w8a8", "llama-of-w8a8"
_LICENCES = {"llama": "llama3.1", "deepseek-v2": "other"}


def config_of(kind: str) -> t.PretrainedConfig:
    """The configuration of the smallest model of that architecture that vLLM serves."""
    if kind in ("llama", _W8A8, _OF_W8A8):
        return t.LlamaConfig(**_SHAPE, head_dim=32)  # the least that attention on a CPU knows
    if kind == "qwen3":
        return t.Qwen3Config(**_SHAPE, head_dim=32)
    if kind == "qwen3-moe":
        return t.Qwen3MoeConfig(
            **_SHAPE, head_dim=32, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64
        )
    if kind == "mistral":
        return t.MistralConfig(**_SHAPE, head_dim=32, sliding_window=None)
    if kind == "deepseek-v2":
        shape = {**_SHAPE, "num_key_value_heads": 4}
        return t.DeepseekV2Config(
            **shape,
            q_lora_rank=None,
            kv_lora_rank=512,  # with the next, the sizes that the MLA kernels know
            qk_nope_head_dim=64,
            qk_rope_head_dim=64,
            v_head_dim=64,
            n_routed_experts=4,
            n_shared_experts=1,
            num_experts_per_tok=2,
            moe_intermediate_size=64,
            first_k_dense_replace=1,
            topk_method="greedy",
            n_group=1,
            topk_group=1,
            routed_scaling_factor=1.0,
        )
    raise SystemExit(f"no stand-in of the kind {kind}")


def tokenizer(folder: Path) -> None:
    """A byte-level BPE of `_VOCABULARY` entries, the special tokens first."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(_TEXT, trainer)
    fast = t.PreTrainedTokenizerFast(
        tokenizer_object=made,
        bos_token="<|im_start|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_end|>"],
        model_max_length=2048,
    )
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)


def model(kind: str, folder: Path) -> None:
    """Random weights, the same in every run, in shards where the architecture is published so."""
    torch.manual_seed(0)
    config = config_of(kind)
    made = t.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    made.save_pretrained(folder, max_shard_size="200KB" if kind == "qwen3" else "1GB")
    if kind in (_W8A8, _OF_W8A8):
        quantise(folder, as_floats=kind == _OF_W8A8)


def quantise(folder: Path, *, as_floats: bool) -> None:
    """Weights in 8 bits with a scale for each row, activations by token as they come: the scheme
    that compressed-tensors calls W8A8. The rows are made unlike, so that scales matter."""
    file = folder / "model.safetensors"
    out = {}
    for name, tensor in load_file(file).items():
        if not name.endswith("_proj.weight"):
            out[name] = tensor
            continue
        rows = tensor * torch.exp(torch.randn(tensor.shape[0], 1) / 2)
        scale = rows.abs().amax(1, keepdim=True) / 127
        small = torch.clamp(torch.round(rows / scale), -128, 127)
        if as_floats:
            out[name] = small * scale
        else:
            out[name], out[f"{name}_scale"] = small.to(torch.int8), scale
    save_file(out, file, metadata={"format": "pt"})
    if not as_floats:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config["quantization_config"] = _scheme()
        (folder / "config.json").write_text(json.dumps(config, indent=2), "utf-8")


def _scheme() -> dict[str, object]:
    int8 = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": {**int8, "strategy": "channel", "dynamic": False},
        "input_activations": {**int8, "strategy": "token", "dynamic": True},
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


def card(kind: str, folder: Path) -> None:
    """The model card's front matter says licence, as on the Hub."""
    licence = _LICENCES.get(kind, "apache-2.0")
    text = f"---\nlicense: {licence}\n---\n# A stand-in for {kind} with random weights\n"
    (folder / "README.md").write_text(text, "utf-8")
    (folder / "LICENSE").write_text("A stand-in; no rights to anything are meant.\n", "utf-8")


def main() -> None:
    """Make the repositories; one process, for to import torch takes longer than to make them."""
    words = sys.argv[1:]
    for kind, folder in zip(words[::2], words[1::2], strict=True):
        repository(kind, Path(folder))


def repository(kind: str, folder: Path) -> None:
    """Make one."""
    folder.mkdir(parents=True)
    tokenizer(folder)
    model(kind, folder)
    card(kind, folder)
    print(json.dumps({"kind": kind, "files": sorted(p.name for p in folder.iterdir())}))


if __name__ == "__main__":
    main()
