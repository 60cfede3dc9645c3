"""Which quantised weights vLLM serves, and where. Read in vLLM 0.32."""

from __future__ import annotations

# What vLLM 0.32 serves by itself, and the least compute capability in tenths (its own
# `get_min_capability`; of compressed-tensors that of its integer schemes). Others, such as MLX's,
# EXL's and bitsandbytes, it refuses.
_LEAST = {
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
_ON_CPU = frozenset(("awq", "gptq", "compressed-tensors"))
_INTEGERS = frozenset(("", "pack-quantized", "int-quantized"))


def refusal(method: str, capability: int | None) -> str:
    """Why vLLM does not serve weights of that method there; empty where it does. `capability`: of
    the weakest GPU in tenths, None on a CPU."""
    name, _, form = method.partition(":")
    if not name:
        return "its config.json names no quantisation"
    if name not in _LEAST:
        return f"vLLM does not serve {name}"
    if capability is None:
        good = name in _ON_CPU and form in _INTEGERS
        return "" if good else f"vLLM does not serve {method} on a CPU"
    least = _LEAST[name]
    if capability >= least:
        return ""
    return f"{name} needs compute capability {least // 10}.{least % 10}"
