"""Does the target that a bundle was locked for fit this host? Python, machine, C library, GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airgap.errors import HostError
from airgap.format.facts import Nvidia
from airgap.format.manifest import Manifest
from airgap.format.types import Serve
from airgap.host import interpreter, nvidia, probe

_WEIGHT_SUFFIXES = (".safetensors", ".gguf")


@dataclass(frozen=True)
class Problem:
    """One reason why the bundle does not fit, in the three sentences of an error."""

    what: str
    why: str
    do: str


def python(manifest: Manifest) -> Iterator[Problem]:
    """The very Python that the wheels were locked for."""
    try:
        interpreter.find(manifest.target.python)
    except HostError as e:
        yield Problem("Python", e.why, e.do)


def machine(manifest: Manifest) -> Iterator[Problem]:
    """The processor that wheels and images were made for."""
    wanted, _, _ = manifest.target.platform.partition("-manylinux_")
    if probe.machine() != wanted:
        yield Problem(
            "machine", f"this is {probe.machine()}, the bundle is for {wanted}", _bring(manifest)
        )


def _bring(manifest: Manifest) -> str:
    return f"bring a bundle locked for this host instead of {manifest.target.platform}"


def platform(manifest: Manifest) -> Iterator[Problem]:
    """`x86_64-manylinux_2_34` runs with glibc 2.34 or newer (PEP 600)."""
    major, minor = (int(x) for x in manifest.target.platform.rpartition("manylinux_")[2].split("_"))
    bring = _bring(manifest)
    libc = probe.glibc()
    if libc is None:
        yield Problem("C library", "this host's C library is not glibc", bring)
    elif libc < (major, minor):
        have = f"{libc[0]}.{libc[1]}"
        yield Problem("C library", f"glibc is {have}, the wheels need {major}.{minor}", bring)


def accelerator(manifest: Manifest, serve: Serve) -> Iterator[Problem]:
    """Driver, number and memory of the GPUs, for a bundle that is for NVIDIA's."""
    kind, _, major = manifest.target.accelerator.partition("-")
    if kind != "cuda":
        return
    found = nvidia.measure()
    if found is None:
        yield Problem(
            "GPU",
            f"the bundle is for {manifest.target.accelerator}, and no NVIDIA GPU answers here",
            "install the NVIDIA driver, or bring a bundle whose target.accelerator is cpu",
        )
        return
    if found.cuda is not None and int(found.cuda.split(".")[0]) < int(major):
        yield Problem(
            "driver",
            f"driver {found.driver} runs CUDA up to {found.cuda}, the bundle is for CUDA {major}",
            "install a newer NVIDIA driver, or bring a bundle for an older CUDA",
        )
    old = [g for g in found.gpus if g.lacks(major)]
    if old and len(found.gpus) - len(old) < serve.tensor_parallel:
        yield Problem(
            "GPU",
            f"{old[0].model} has compute capability {old[0].compute_capability}, CUDA {major} "
            f"needs {old[0].lacks(major)}",
            "bring a bundle for an older CUDA, or serve it on a newer GPU",
        )
    yield from _gpu_memory(manifest, serve, found)


def _gpu_memory(manifest: Manifest, serve: Serve, found: Nvidia) -> Iterator[Problem]:
    """The weights alone must fit; what else is needed, `sealift plan` reckons beforehand."""
    wanted = serve.tensor_parallel
    if len(found.gpus) < wanted:
        yield Problem(
            "GPU",
            f"the bundle is spread over {wanted} GPUs, this host has {len(found.gpus)}",
            "bring a bundle with another serve.tensor-parallel, or serve it elsewhere",
        )
        return
    weights = sum(
        f.size for f in manifest.model_to_serve().files if f.path.suffix in _WEIGHT_SUFFIXES
    )
    least = min(g.memory for g in found.gpus[:wanted])
    if weights > least * wanted:
        yield Problem(
            "GPU memory",
            f"the weights have {weights:,} bytes, {wanted} x {least:,} are there",
            "bring a quantised variant, or one spread over more GPUs (serve.tensor-parallel)",
        )
