"""How the weights of a model are quantised, by what their files say."""

from __future__ import annotations

import re

from bundler.plan.attention import decode

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
