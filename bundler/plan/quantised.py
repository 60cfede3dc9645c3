"""How the weights of a model are quantised, and which engines serve that where."""

from __future__ import annotations

import re

from bundler.plan.attention import decode

# What vLLM 0.32 serves by itself, and the least compute capability in tenths (its own
# `get_min_capability`; of compressed-tensors that of its integer schemes). Others, such as MLX's,
# EXL's and bitsandbytes, it refuses.
_VLLM = {
    "auto-round": 75,
    "awq": 75,
    "compressed-tensors": 75,
    "fbgemm_fp8": 80,
    "fp8": 75,
    "gptq": 60,
    "modelopt": 80,
    "modelopt_fp4": 75,
    "mxfp4": 80,
    "quark": 70,
    "torchao": 75,
}
# On a CPU (vLLM's table of quantisation and hardware): integers only.
_VLLM_CPU = frozenset(("awq", "gptq", "compressed-tensors"))
_INTEGERS = frozenset(("", "pack-quantized", "int-quantized"))
_WORD = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
# The end of a GGUF file's name says how: Q4_K_M, IQ3_XXS, BF16, MXFP4_MOE.
_GGUF = re.compile(r"[-_.](I?Q\d\w*|BF16|F16|F32|MXFP4\w*|TQ\d\w*)$", re.IGNORECASE)


def of_config(data: bytes) -> str:
    """The method and, of compressed-tensors, the format: `awq`, `compressed-tensors:int-quantized`.
    Empty where `config.json` names none. Raises IntegrityError `plan.header`."""
    config = decode(data)
    inner = config.get("text_config")
    found = config.get("quantization_config")
    if found is None and isinstance(inner, dict):
        found = inner.get("quantization_config")
    if not isinstance(found, dict):
        return ""
    method, form = _word(found.get("quant_method")), _word(found.get("format"))
    if method == "compressed-tensors" and form:
        return f"{method}:{form}"
    return method


def _word(value: object) -> str:
    """A name that can be shown; anything else is none that an engine knows."""
    if not isinstance(value, str) or not value:
        return ""
    return value if _WORD.fullmatch(value) else "unknown"


def of_gguf(stem: str) -> str:
    """By the name of the file without its suffix; `GGUF` where that does not say."""
    found = _GGUF.search(stem)
    return f"GGUF {found[1].upper()}" if found else "GGUF"


def refusal(method: str, capability: int | None) -> str:
    """Why vLLM does not serve weights of that method there; empty where it does. `capability`: of
    the weakest GPU in tenths, None on a CPU."""
    name, _, form = method.partition(":")
    if not name:
        return "its config.json names no quantisation"
    if name not in _VLLM:
        return f"vLLM does not serve {name}"
    if capability is None:
        good = name in _VLLM_CPU and form in _INTEGERS
        return "" if good else f"vLLM does not serve {method} on a CPU"
    least = _VLLM[name]
    if capability >= least:
        return ""
    return f"{name} needs compute capability {least // 10}.{least % 10}"
