"""PEFT's `adapter_config.json`: which base an adapter is for, its rank, whether it is plain LoRA.

vLLM serves plain LoRA only; what it would refuse at start on the host is refused here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airgap.errors import SourceError
from bundler.scan import strictjson

# Keys that change what an adapter means and that vLLM does not know: key -> values that are fine.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": (None, "none"),
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "alora_invocation_tokens": (None, []),
    "layer_replication": (None, []),
    "modules_to_save": (None, [], ["classifier"], ["score"], ["classifier", "score"]),
    "use_bdlora": (None, {}),
    "use_qalora": (None, False),
}
# vLLM's largest --max-lora-rank.
MAX_RANK = 512


@dataclass(frozen=True)
class AdapterConfig:
    """`base`: the repository that the adapter was trained on, as it says itself."""

    base: str
    rank: int


def read(data: bytes, source: str) -> AdapterConfig:
    """Raises SourceError `source.adapter` for anything but a plain LoRA adapter."""
    try:
        config = strictjson.decode(data)
    except strictjson.Malformed as e:
        raise _refused(source, f"adapter_config.json cannot be read: {e}") from e
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise _refused(source, f"its peft_type is {ascii(kind)[:60]}, only LORA can be served")
    for key, fine in _PLAIN.items():
        if config.get(key) not in fine:
            raise _refused(source, f"{key} = {ascii(config[key])[:100]}, which vLLM does not serve")
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise _refused(source, "adapter_config.json does not say base_model_name_or_path")
    return AdapterConfig(base, _rank(config, source))


def _rank(config: Mapping[str, Any], source: str) -> int:
    """The largest rank of any module: what the engine must have room for."""
    pattern = config.get("rank_pattern") or {}
    largest = 0
    for rank in (config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [None])):
        if type(rank) is not int or not 1 <= rank <= MAX_RANK:
            raise _refused(source, f"its rank is {ascii(rank)[:40]}, not 1 to {MAX_RANK}")
        largest = max(largest, rank)
    return largest


def _refused(source: str, why: str) -> SourceError:
    return SourceError(
        "source.adapter",
        f"{source} is no LoRA adapter that can be served",
        why=why,
        do="merge it into its base model and name that as [[model]], or take a plain LoRA adapter",
    )
