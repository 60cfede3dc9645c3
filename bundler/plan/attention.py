"""How many bytes of cache a model keeps for each token: from `config.json`, or a GGUF header.

A layer with grouped-query attention keeps a key and a value for each key-value head; one with
multi-head latent attention (DeepSeek V2 and V3) one compressed vector, the same on every GPU; one
with a sliding window never more than the window's tokens; one without attention none that grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airgap import limits
from airgap.errors import IntegrityError
from bundler.plan.ranges import RangeFile, Source
from bundler.scan import bounds
from bundler.scan.ggufread import ARRAY, FIXED, STRING, Header
from bundler.scan.report import Fault

# Of config.json; the largest have some tens of KB.
MAX_CONFIG_BYTES = 4 * limits.MIB
# Layers that keep a state of fixed size instead of one entry a token.
_NO_CACHE = frozenset(("linear_attention", "mamba", "conv", "recurrent", "mlp"))
_SLIDING = frozenset(("sliding_attention", "local", "local_attention", "chunked_attention"))


@dataclass(frozen=True)
class Attention:
    """`full` and `sliding` count layers; `window` in tokens. A layer's entry is `kv_heads` heads of
    `head_values` numbers, or `latent` numbers where it is one compressed vector."""

    full: int
    sliding: int = 0
    window: int = 0
    kv_heads: int | None = None
    head_values: int = 0
    latent: int = 0
    longest: int | None = None

    def bytes_per_sequence(self, tokens: int, value_bytes: int, gpus: int = 1) -> int:
        """On one of `gpus`, for one sequence of `tokens` tokens."""
        entry = self.latent
        if not entry and self.kv_heads:
            entry = -(-self.kv_heads // gpus) * self.head_values
        held = self.full * tokens + self.sliding * min(tokens, self.window or tokens)
        return held * entry * value_bytes


def of_config(data: bytes) -> Attention | None:
    """From `config.json`; None where it speaks of no architecture that is known here."""
    config = decode(data)
    inner = config.get("text_config")
    if isinstance(inner, dict):
        config = {**config, **inner}
    layers = _int(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    heads = _int(config, "num_attention_heads", "n_head", "n_heads")
    hidden = _int(config, "hidden_size", "n_embd", "dim")
    longest = _int(config, "max_position_embeddings", "n_positions", "max_seq_len")
    if not layers or not heads or not hidden:
        return None
    full, sliding, window = _layers(config, layers)
    latent = _int(config, "kv_lora_rank")
    if latent:
        rope = _int(config, "qk_rope_head_dim") or 0
        return Attention(full, sliding, window, latent=latent + rope, longest=longest)
    kv_heads = _int(config, "num_key_value_heads", "n_kv_heads", "num_kv_heads") or heads
    head = _int(config, "head_dim") or hidden // heads
    value = _int(config, "v_head_dim") or head
    return Attention(full, sliding, window, kv_heads, head + value, longest=longest)


def _layers(config: Mapping[str, Any], layers: int) -> tuple[int, int, int]:
    """Layers that see everything, layers with a window, and the window."""
    window = _int(config, "sliding_window") or 0
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == layers and all(isinstance(k, str) for k in kinds):
        sliding = sum(k in _SLIDING for k in kinds) if window else 0
        return layers - sliding - sum(k in _NO_CACHE for k in kinds), sliding, window
    if not window or config.get("use_sliding_window") is False:
        return layers, 0, 0
    from_layer = _int(config, "max_window_layers")
    if config.get("use_sliding_window") and from_layer is not None:
        return min(from_layer, layers), max(layers - from_layer, 0), window  # Qwen 2
    every = _int(config, "sliding_window_pattern")
    if every:
        return layers // every, layers - layers // every, window  # Gemma 3
    return 0, layers, window


def decode(data: bytes) -> dict[str, Any]:
    """`config.json` as a table. Raises IntegrityError `plan.header`."""
    try:
        found = json.loads(data[:MAX_CONFIG_BYTES])
    except (ValueError, RecursionError) as e:
        raise _bad("config.json", f"it is not JSON: {str(e)[:100]}") from e
    if not isinstance(found, dict):
        raise _bad("config.json", "it is no table")
    return found


def _int(table: Mapping[str, Any], *keys: str) -> int | None:
    """The first of `keys` that holds a sensible number."""
    for key in keys:
        value = table.get(key)
        if type(value) is int and 0 < value < 2**32:
            return value
    return None


def of_gguf(source: Source, name: str) -> Attention | None:
    """From the metadata of a GGUF file; of a split model, of its first part."""
    try:
        values = _metadata(Header(RangeFile(source, name), source.sizes[name]))  # type: ignore[arg-type]
    except Fault as e:
        raise _bad(name, e.message) from e
    kind = values.get("general.architecture")
    own = {k.removeprefix(f"{kind}."): v for k, v in values.items()}
    layers, heads = _int(own, "block_count"), _int(own, "attention.head_count")
    hidden, longest = _int(own, "embedding_length"), _int(own, "context_length")
    if not layers or not heads or not hidden:
        return None
    latent = _int(own, "attention.kv_lora_rank")
    if latent and _int(own, "attention.key_length_mla"):
        rope = _int(own, "rope.dimension_count") or 0
        return Attention(layers, latent=latent + rope, longest=longest)
    kv_heads = _int(own, "attention.head_count_kv") or heads
    key = _int(own, "attention.key_length") or hidden // heads
    value = _int(own, "attention.value_length") or key
    return Attention(layers, 0, 0, kv_heads, key + value, longest=longest)


def _metadata(header: Header) -> dict[str, Any]:
    """Numbers and the architecture's name; everything else is stepped over. A list of numbers, one
    a layer, is its greatest."""
    if header.take(4) != b"GGUF" or header.uint(4) not in (2, 3):
        raise Fault("gguf.magic", "it does not begin as GGUF 2 or 3")
    header.uint(8)
    count = header.uint(8)
    header.expect("keys", count, 13, bounds.MAX_GGUF_KEYS)
    values: dict[str, Any] = {}
    for _ in range(count):
        key, type = header.text(bounds.MAX_GGUF_KEY_BYTES), header.uint(4)
        if key == "general.architecture" and type == STRING:
            values[key] = header.text(100)
        elif type in (4, 5, 10, 11):
            values[key] = header.uint(FIXED[type])
        elif type == ARRAY and key.endswith("head_count_kv"):
            values[key] = _greatest(header)
        else:
            header.skip_value(type, 0)
    return values


def _greatest(header: Header) -> int:
    type, count = header.uint(4), header.uint(8)
    if type not in (4, 5):
        raise Fault("gguf.type", "the numbers of heads are no 32-bit integers")
    header.expect("elements", count, 4, 100_000)
    return max((header.uint(4) for _ in range(count)), default=0)


def _bad(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        "plan.header",
        f"{name} cannot be understood",
        why=why,
        do="take the model from its source again, or do not use it",
    )
