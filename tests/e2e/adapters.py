"""A LoRA adapter made without torch, and what peft says that a model answers with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# Installed beside the engine's own wheels, for the expectation only.
PEFT = ("peft==0.21.2", "accelerate==1.15.0")
_RANK = 8

_EXPECT = """
import json, sys
sys.path.append(sys.argv[1])
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
model, adapter, prompt, tokens = sys.argv[2:6]
words = AutoTokenizer.from_pretrained(model)
loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
def answer(m):
    ids = words(prompt, return_tensors="pt")
    out = m.generate(**ids, max_new_tokens=int(tokens), do_sample=False, output_logits=True,
                     return_dict_in_generate=True)
    new = out.sequences[0][ids["input_ids"].shape[1]:]
    logs = [torch.log_softmax(step[0].float(), -1)[t].item() for step, t in zip(out.logits, new)]
    return {"text": words.decode(new), "logprobs": logs}
base = answer(loaded)
tuned = answer(PeftModel.from_pretrained(loaded, adapter))
print(json.dumps({"base": base, "tuned": tuned}))
"""


def make_adapter(model: Path, folder: Path, base: str) -> Path:
    """A LoRA adapter in PEFT's format for all q and v of a Llama, the same in every run."""
    config = json.loads((model / "config.json").read_bytes())
    wide = config["hidden_size"]
    head = config.get("head_dim") or wide // config["num_attention_heads"]
    narrow = config["num_key_value_heads"] * head
    random = np.random.default_rng(0)
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, rows in (("q_proj", wide), ("v_proj", narrow)):
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            a = random.normal(0, 0.05, (_RANK, wide))
            b = random.normal(0, 0.05, (rows, _RANK))
            tensors[f"{key}.lora_A.weight"] = a.astype(np.float32)
            tensors[f"{key}.lora_B.weight"] = b.astype(np.float32)
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    stated = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_alpha": 16,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": _RANK,
        "target_modules": ["q_proj", "v_proj"],
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(stated, indent=2) + "\n")
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Made by a test\n")
    return folder


def fetch_peft(cache: Path) -> Path:
    """peft without its dependencies, which the engine's wheels bring."""
    folder = cache / "peft"
    if not (folder / "peft").is_dir():
        argv = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        subprocess.run([*argv, "--only-binary", ":all:", *PEFT], check=True)
    return folder


def expectation(
    python: Path, peft: Path, model: Path, adapter: Path, prompt: str, tokens: int
) -> dict[str, dict[str, object]]:
    """Text and logprobs, greedy, of the base and of the adapter, computed by `python`, which has
    torch and transformers: the engine's own."""
    argv = [str(python), "-I", "-c", _EXPECT, str(peft), str(model), str(adapter), prompt]
    done = subprocess.run(
        [*argv, str(tokens)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))
