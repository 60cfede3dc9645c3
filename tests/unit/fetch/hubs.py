"""Small repositories for the local Hub: folders with a model or an adapter in them."""

from __future__ import annotations

import json
from pathlib import Path

HEADER = b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}'
WEIGHTS = len(HEADER).to_bytes(8, "little") + HEADER + b"\x01\x02\x03\x04"
GGUF = b"GGUF" + bytes(60)
CARD = "---\nlicense: apache-2.0\nbase_model: other/one\n---\n# A model\n"
TOKEN = "hf_" + "x" * 20


def write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for path, data in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def model(folder: Path, **more: bytes | str) -> Path:
    """As a repository of the Hub looks: one model, and everything that people put beside it."""
    return write(
        folder,
        {
            ".gitattributes": "*.safetensors filter=lfs\n",
            "README.md": CARD,
            "config.json": '{"model_type": "llama"}',
            "tokenizer/vocab.json": "{}",
            "model.safetensors": WEIGHTS,
            **more,
        },
    )


def adapter(folder: Path, base: str = "org/base", **config: object) -> Path:
    text = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": base, **config}
    return write(
        folder,
        {
            "README.md": CARD,
            "adapter_config.json": json.dumps(text),
            "adapter_model.safetensors": WEIGHTS,
            "optimizer.pt": b"\x80\x02.",
        },
    )
