"""Do wheels and image suit the measured host, and which would suit it best?"""

from __future__ import annotations

from collections.abc import Iterator

from airgap.engines import registry as engines
from airgap.errors import UsageError
from airgap.format.facts import Facts, engine_of
from airgap.format.request import Request, TargetRequest
from airgap.format.types import Serve
from bundler import facts as measured
from bundler.plan.judgement import Judgement

_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# The first driver branch of each CUDA major version (NVIDIA's CUDA compatibility guide).
_DRIVERS = {"11": "450.80", "12": "525.60", "13": "580.65"}


def judge(request: Request, found: Facts) -> list[Judgement]:
    """Everything at once."""
    out = list(_target(request, found))
    for image in request.image:
        out += _image(image.reference, image.platform, found)
    out += _accelerator(request, found)
    serve = request.serve
    if serve is not None:
        out += _engine(serve, request.target.accelerator, found)
        free = serve.port not in found.listening
        do = "choose another serve.port"
        out.append(Judgement(free, "port", f"{serve.port} on the host's loopback", do))
    if found.clock.behind:
        text = "the host's clock shows a time that was over when it was measured"
        out.append(Judgement(False, "clock", text, "set it: approvals expire by it"))
    return out


def _engine(serve: Serve, accelerator: str, found: Facts) -> Iterator[Judgement]:
    """What the wheels of the engine need of the host itself; an image brings its own."""
    if serve.runtime != "venv":
        return
    engine = engines.named(serve.engine)
    for library in engine.system_libraries(accelerator):
        text = f"{engine.name} needs {library.soname}"
        do = f"install {library.package} on the host from its own package source"
        yield Judgement(library.soname in found.libraries, "library", text, do)
    for feature in engine.cpu_features(accelerator, found.machine):
        text = f"{engine.name}'s wheels need a processor with {feature}"
        do = "serve it on another host; a virtual machine may be kept from what its processor has"
        yield Judgement(feature in found.cpu.features, "processor", text, do)


def _target(request: Request, found: Facts) -> Iterator[Judgement]:
    """Only wheels depend on Python and glibc."""
    if not request.wheels:
        return
    target = request.target
    for key in ("python", "platform"):
        wanted = getattr(target, key)
        try:
            measured.target(found, TargetRequest(facts="-", **{key: wanted}))
        except UsageError as e:
            yield Judgement(False, key, f"{wanted}: {e.why}", _best(found, key) or e.do)
        else:
            best = _best(found, key)
            yield Judgement(
                True, key, f"wheels for {wanted} run on it{f' ({best})' if best else ''}"
            )
    venv = [p.venv for p in found.pythons if p.version == target.python]
    if venv and not venv[0]:
        text = f"Python {target.python} has no venv or ensurepip"
        yield Judgement(True, "python", f"{text}: the kit's uv installs without it")


def _best(found: Facts, key: str) -> str:
    """What a request that leaves `key` to the facts would be locked for."""
    try:
        best = getattr(measured.target(found, TargetRequest(facts="-")), key)
    except UsageError:
        return ""
    return f"the host's best is {best}"


def _image(reference: str, platform: str, found: Facts) -> Iterator[Judgement]:
    machine = _MACHINES.get(platform.split("/")[1], platform)
    text = f"{reference} for {platform} on {found.machine}"
    other = {v: k for k, v in _MACHINES.items()}.get(found.machine, found.machine)
    do = f'platform = "linux/{other}"'
    yield Judgement(machine == found.machine, "image", text, do)
    here = [f"{r.name} {r.version}" for r in found.runtimes if r.name in ("podman", "docker")]
    text = f"runs in {', '.join(here)}" if here else "no podman or docker on the host"
    do = 'install podman there, or serve from wheels (serve.runtime = "venv")'
    yield Judgement(bool(here), "image", text, do)


def _accelerator(request: Request, found: Facts) -> Iterator[Judgement]:
    kind, _, major = request.target.accelerator.partition("-")
    if kind != "cuda":
        has = found.nvidia is not None and bool(found.nvidia.gpus)
        note = "; its GPUs stay unused" if has else ""
        yield Judgement(True, "accelerator", f"{request.target.accelerator}{note}")
        return
    if found.nvidia is None:
        text = f"{request.target.accelerator}: no NVIDIA driver answers on the host"
        yield Judgement(False, "driver", text, 'install it, or accelerator = "cpu"')
        return
    cuda = found.nvidia.cuda or "0.0"
    text = f"driver {found.nvidia.driver} runs CUDA up to {cuda}, wanted is CUDA {major}"
    need = _DRIVERS.get(major, "a newer one")
    do = f"install driver {need} or newer, or wheels and image for cuda-{cuda.split('.')[0]}"
    yield Judgement(int(cuda.split(".")[0]) >= int(major), "driver", text, do)
    gpus, wanted = len(found.nvidia.gpus), request.serve.tensor_parallel if request.serve else 1
    names = ", ".join(dict.fromkeys(g.model for g in found.nvidia.gpus))
    text = f"{gpus} x {names or 'GPU'}, wanted {'is' if wanted == 1 else 'are'} {wanted}"
    yield Judgement(gpus >= wanted, "GPU", text, "lower serve.tensor-parallel")
    old = [g for g in found.nvidia.gpus if g.lacks(major)]
    if old and gpus - len(old) < wanted:
        text = f"{old[0].model} has compute capability {old[0].compute_capability}"
        text += f", CUDA {major} needs {old[0].lacks(major)}"
        yield Judgement(False, "GPU", text, "wheels and image for an older CUDA, or a newer GPU")
    if request.image:
        yield from _for_containers(found)


def _for_containers(found: Facts) -> Iterator[Judgement]:
    """Whether the container engine that would be taken gives its containers the GPUs."""
    engine = engine_of(found.runtimes)
    if engine is not None and engine.lacks_cdi:
        text = f"{engine.name} {engine.version} gives containers no GPUs by CDI"
        yield Judgement(False, "image", text, f"install {engine.lacks_cdi} on the host")
    if not found.cdi:
        text = "no CDI file gives containers the GPUs"
        do = "run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml` on the host"
        yield Judgement(False, "image", text, do)
