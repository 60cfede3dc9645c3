"""What vLLM says when it does not start, and what that means here. Read in vLLM 0.32."""

from __future__ import annotations

import re

from airgap.engines.interface import Meaning

_LESS_MEMORY = "stop other programs that use memory, or approve a bundle with a smaller "
# The first that is found in the log is the cause; what follows from another stands behind it.
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"LocalEntryNotFoundError|OfflineModeIsEnabled|outgoing traffic has been disabled",
        "it wanted a file of the Hub that the bundle does not carry",
        "tell the builder to add what the log names: a tokenizer, a vocabulary, a base model",
    ),
    (
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived "
        r"max_model_len \([\w_]*=?(?P<most>[\d.]+)",
        "serve.max-model-len is {wanted} tokens, the model has {most}",
        "approve a bundle with a max-model-len that the model has",
    ),
    (
        r"\((?P<free>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested memory "
        r"for kv \((?P<wanted>[\d.]+)",
        "{wanted} GiB of memory are wanted for the KV cache, {free} GiB are free",
        _LESS_MEMORY + "serve.kv-cache-gib",
    ),
    (
        r"max seq len \((?P<length>\d+)\), \(?(?P<wanted>[\d.]+) GiB KV cache is needed, which is "
        r"larger than the available KV cache memory \((?P<free>[\d.]+) GiB\)",
        "one request of {length} tokens needs {wanted} GiB of KV cache, there are {free} GiB",
        "approve a bundle with a smaller serve.max-model-len, or more memory for the cache",
    ),
    (
        r"No available memory for the cache blocks",
        "the weights leave no memory for the KV cache",
        "approve a bundle with a larger serve.gpu-memory, a smaller model, or more GPUs",
    ),
    (
        r"Free memory on device [^(]*\((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup",
        "the GPU has {free} of {all} GiB free, less than the share that the plan asks for",
        _LESS_MEMORY + "serve.gpu-memory (`nvidia-smi` names them)",
    ),
    (
        r"CUDA out of memory|OutOfMemoryError",
        "the GPU's memory is too small for this model",
        "approve a bundle with a smaller or a quantised model, or with more GPUs",
    ),
    (
        r"Model architectures? (?P<name>\S+) (?:is|are) not supported",
        "this vLLM does not know the architecture {name}",
        "approve a bundle with another version of vLLM",
    ),
    (
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank",
        "the adapter has the rank {rank}, more than its approved entry says",
        "have the adapter locked again from its source",
    ),
    (
        r"lib(?P<name>[\w.-]+): cannot open shared object file",
        "this host lacks the library lib{name}",
        "install it from this host's own package source; `airgap preflight` names the package",
    ),
    (
        r"Insufficient space in /dev/shm [^:]*: (?P<wanted>\d+) MiB required, (?P<free>\d+) MiB",
        "it wants {wanted} MiB of shared memory, /dev/shm has {free} MiB free",
        "enlarge it (`mount -o remount,size=1G /dev/shm`; a container: --shm-size 1g)",
    ),
    (
        r"Failed to find C compiler",
        "Triton compiles its launcher on the host, and there is no C compiler",
        "install gcc from this host's own package source",
    ),
)
# Log lines of vLLM's processes begin with `(EngineCore pid=17) ERROR ...`, also inside a message.
_PREFIX = re.compile(r"^\([A-Za-z_ ]+\d* pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\] )?", re.M)


def explain(log: str) -> Meaning | None:
    """The meaning of the first known message in `log`, or None."""
    text = " ".join(_PREFIX.sub("", log).split())
    found = []
    for pattern, why, do in _KNOWN:
        match = re.search(pattern, text)
        if match is not None:
            found.append((match.start(), Meaning(why.format(**match.groupdict()), do)))
    return min(found, key=lambda f: f[0])[1] if found else None
