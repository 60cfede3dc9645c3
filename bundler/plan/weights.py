"""How many bytes of weights a model has, and how they divide over GPUs; from headers alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath

from airgap.errors import IntegrityError
from airgap.format import canonical
from bundler.plan.ranges import Source
from bundler.scan import bounds
from bundler.scan.report import Fault
from bundler.scan.safetensors import check_header

# Read first of every safetensors file; most headers are in it.
_FIRST_BYTES = 64 * 1024
# Headers that are asked for at one time: a large model has 100 and more shards.
_AT_ONCE = 8
# Layers that vLLM keeps whole on every GPU: norms and biases are vectors; these are matrices.
_REPLICATED = re.compile(r"\.(kv_a_proj_with_mqa|q_a_proj|kv_a_layernorm|mlp\.gate)\.")
_KEY_VALUE = re.compile(r"\.(k_proj|v_proj)\.")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model file."""

    name: str
    dtype: str
    rank: int
    bytes: int


@dataclass(frozen=True)
class Weights:
    """Bytes by how tensor parallelism treats them: `shared` out over the GPUs, `whole` on each,
    `key_value` shared over at most as many GPUs as there are key-value heads.

    `dtype` is the one of most bytes.
    """

    shared: int
    whole: int
    key_value: int
    dtype: str

    @property
    def total(self) -> int:
        """Bytes on one GPU that has all."""
        return self.shared + self.whole + self.key_value

    def per_gpu(self, gpus: int, kv_heads: int | None) -> int:
        """Bytes on the fullest of `gpus`."""
        heads = min(gpus, kv_heads or gpus)
        return -(-self.shared // gpus) + self.whole + -(-self.key_value // heads)


def of_safetensors(source: Source, names: list[str]) -> Weights:
    """From every shard's header. Raises IntegrityError `plan.header`, SourceError `plan.read`."""
    kinds = {"shared": 0, "whole": 0, "key_value": 0}
    dtypes: dict[str, int] = {}
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for shard in pool.map(lambda name: list(tensors(source, name)), names):
            for tensor in shard:
                kinds[_kind(tensor)] += tensor.bytes
                dtypes[tensor.dtype] = dtypes.get(tensor.dtype, 0) + tensor.bytes
    finally:
        pool.shutdown(cancel_futures=True)
    if not dtypes:
        raise _bad_header(names[0], "it names no tensor, and neither does any other file")
    most = max(dtypes, key=lambda d: (dtypes[d], d))
    return Weights(kinds["shared"], kinds["whole"], kinds["key_value"], most)


def of_gguf(source: Source, names: list[str]) -> Weights:
    """llama.cpp divides whole layers, so nothing is kept twice; the header is a few megabytes."""
    return Weights(sum(source.sizes[n] for n in names), 0, 0, "GGUF")


def tensors(source: Source, name: str) -> Iterator[Tensor]:
    """Every tensor that the header of a safetensors file names, strictly checked."""
    size = source.sizes[name]
    try:
        first = source.read(name, 0, min(_FIRST_BYTES, size))
        if len(first) < 8:
            raise Fault("safetensors.header", f"the file has {size} bytes, a header needs 8")
        length = int.from_bytes(first[:8], "little")
        if length > min(bounds.MAX_SAFETENSORS_HEADER_BYTES, size - 8):
            raise Fault("safetensors.header-size", f"a header of {length} bytes")
        header = first[8 : 8 + length]
        if len(header) < length:
            header += source.read(name, len(first), length - len(header))
        check_header(header, size - 8 - length)
    except Fault as e:
        raise _bad_header(name, e.message) from e
    table = canonical.decode(header.rstrip(b" "), max_bytes=bounds.MAX_SAFETENSORS_HEADER_BYTES)
    for tensor, entry in table.items():
        if tensor != "__metadata__":
            begin, end = entry["data_offsets"]
            yield Tensor(tensor, entry["dtype"], len(entry["shape"]), end - begin)


def _kind(tensor: Tensor) -> str:
    name = f".{tensor.name}"
    if tensor.rank < 2 or _REPLICATED.search(name):
        return "whole"
    return "key_value" if _KEY_VALUE.search(name) else "shared"


def weight_files(names: list[str]) -> tuple[str, list[str]]:
    """The format and the files of the weights among `names`."""
    for suffix in ("safetensors", "gguf"):
        found = [n for n in names if PurePosixPath(n).suffix.lower() == f".{suffix}"]
        if found:
            return suffix, sorted(found)
    raise IntegrityError(
        "plan.no-weights",
        "there are no weights among the files of the model",
        why="neither safetensors nor GGUF",
        do="check repo, include and exclude",
    )


def _bad_header(name: str, why: str) -> IntegrityError:
    return IntegrityError(
        "plan.header",
        f"{name} is not what its name says",
        why=why,
        do="take the model from its source again, or do not use it: the gate would refuse it",
    )
