"""Does a model fit GPUs of a size? Weights and cache against memory, and what to do when not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airgap import limits
from airgap.format.types import Serve
from bundler.plan.attention import Attention
from bundler.plan.weights import Weights

# vLLM 0.32's own default of --gpu-memory-utilization, in thousandths.
DEFAULT_SHARE = 920
# The CUDA context, graphs and activations of one step, in bytes: an estimate; 1 to 3 GiB are seen.
RESERVE_BYTES = 2 * limits.GIB
# Ways to spread a model that engines support.
SPREADS = (1, 2, 4, 8)
# Context that is reckoned with where neither the request nor the model names one, in tokens.
DEFAULT_TOKENS = 4096
# Weights of 16 bits in other forms, in thousandths: 8 bits with scales; AWQ and GPTQ of 4 bits with
# groups of 128, embeddings left as they are. On a CPU integers only.
_FOUR_BITS = {"4 bits (AWQ, GPTQ)": 300}
QUANTISED = {"FP8": 520, **_FOUR_BITS}
QUANTISED_ON_CPU = {"INT8 (W8A8)": 520, **_FOUR_BITS}
_WIDE = ("BF16", "F16", "F32")
# GPUs that people have, in GiB of memory as the driver reports it.
COMMON_GPUS = {"24 GB": 23, "48 GB": 45, "80 GB": 79, "96 GB": 95, "141 GB": 139}


@dataclass(frozen=True)
class Demand:
    """What is to be served: `tokens` of context, `sequences` at once (None: as many as fit)."""

    weights: Weights
    attention: Attention | None
    tokens: int
    sequences: int | None
    value_bytes: int
    share: int
    heads: int | None = None

    def cache(self, gpus: int) -> int:
        """Bytes on one of `gpus` for one sequence of the full context."""
        if self.attention is None:
            return 0
        return self.attention.bytes_per_sequence(self.tokens, self.value_bytes, gpus)

    def weights_on(self, gpus: int) -> int:
        """Bytes of weights on one of `gpus`."""
        return self.weights.per_gpu(gpus, self.attention.kv_heads if self.attention else None)


@dataclass(frozen=True)
class Fit:
    """On one GPU of several, in bytes. `sequences`: how many of the full context fit at once."""

    gpus: int
    memory: int
    usable: int
    weights: int
    cache_per_sequence: int
    reserve: int
    sequences: int

    @property
    def fits(self) -> bool:
        """The engine starts: room for one sequence of the full context."""
        return self.weights + self.reserve + self.cache_per_sequence <= self.usable

    @property
    def lacking(self) -> int:
        """Bytes that are missing on each GPU until it starts."""
        needs = self.weights + self.reserve + self.cache_per_sequence
        return max(0, needs - self.usable)


def demand(
    serve: Serve, weights: Weights, attention: Attention | None, tokens: int | None = None
) -> Demand:
    """What the serving plan asks for. Without a context length the model's own longest counts, as
    vLLM does."""
    longest = attention.longest if attention else None
    share = DEFAULT_SHARE
    if serve.gpu_memory is not None:
        share = int(serve.gpu_memory.partition(".")[2].ljust(3, "0"))
    return Demand(
        weights=weights,
        attention=attention,
        tokens=tokens or serve.max_model_len or longest or DEFAULT_TOKENS,
        sequences=serve.max_num_seqs,
        value_bytes=4 if serve.dtype == "float32" else 2,
        share=share,
    )


def fit(wanted: Demand, gpus: int, memory: int) -> Fit:
    """On `gpus` GPUs of `memory` bytes each."""
    usable = memory * wanted.share // 1000
    weights, cache = wanted.weights_on(gpus), wanted.cache(gpus)
    left = usable - weights - RESERVE_BYTES
    sequences = max(0, left) // cache if cache else 0
    return Fit(gpus, memory, usable, weights, cache, RESERVE_BYTES, sequences)


def ways_out(wanted: Demand, found: Fit, available: int) -> list[str]:
    """What would make it fit with these weights, each as a sentence; the least intrusive first."""
    out = []
    left = found.usable - found.weights - found.reserve
    if found.cache_per_sequence and left > 0:
        tokens = left * wanted.tokens // found.cache_per_sequence // 1024 * 1024
        if tokens >= 1024:
            out.append(f"max-model-len = {tokens} instead of {wanted.tokens} fits")
    for gpus in SPREADS:
        if found.gpus < gpus and fit(wanted, gpus, found.memory).fits:
            has = "" if gpus <= available else f" (the host has {available})"
            out.append(f"tensor-parallel = {gpus} fits{has}")
            break
    return out


def estimate(
    weights: Weights, held: int, room: int, forms: Mapping[str, int] = QUANTISED
) -> list[str]:
    """The first of `forms` that fits, where nobody knows of a real one. `held`: how many bytes of
    the weights lie where there is `room` for some, in bytes."""
    if weights.dtype not in _WIDE:
        return []
    halved = 2000 if weights.dtype == "F32" else 1000
    for name, thousandths in forms.items():
        if held * thousandths // halved <= room:
            total = weights.total * thousandths // halved
            return [f"a variant quantised to {name} has about {total:,} bytes and fits"]
    return []


def smallest(wanted: Demand) -> list[str]:
    """For a host that nobody measured: which common GPUs take it, one line for each number."""
    out = []
    for gpus in SPREADS:
        for name, gib in COMMON_GPUS.items():
            found = fit(wanted, gpus, gib * limits.GIB)
            if found.fits:
                out.append(
                    f"{gpus} x {name}: {found.sequences} sequences of {wanted.tokens} tokens"
                )
                break
    return out or ["none of the common GPUs, not even eight: spread it over several hosts"]
