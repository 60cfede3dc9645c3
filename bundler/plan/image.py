"""An image looked at in its registry: what it weighs, and whether it suits the GPUs and driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from airgap.errors import FormatError, IntegrityError, SourceError
from airgap.events import Sink
from airgap.format.facts import Facts, Nvidia
from airgap.format.request import ImageRequest, Request
from airgap.store import Store
from bundler.fetch import images
from bundler.plan import cuda
from bundler.plan.cuda import Claims, Requirement
from bundler.plan.judgement import Judgement
from bundler.plan.sizes import Part

# GPUs on which NVIDIA does not support the compatibility libraries of an image.
_CONSUMER = ("GeForce", "TITAN")
_OTHER_GPU = "choose another tag, or a newer GPU"


@dataclass(frozen=True)
class LookedImage:
    """What was found of an image; `claims` is None where its registry did not answer."""

    request: ImageRequest
    part: Part
    claims: Claims | None


def look(request: ImageRequest, store: Store, sink: Sink) -> LookedImage:
    """By its manifest, which has every layer's size, and its configuration. Nothing comes into the
    store. Raises as locking does; a registry that does not answer leaves both unknown."""
    try:
        seen = images.see_image(request, sink)
    except SourceError as e:
        if e.id != "source.unreachable":
            raise
        note = f"unknown: {e.why[:200]}"
        return LookedImage(
            request, Part(request.name, "image", request.reference, 0, 0, 0, 1, note), None
        )
    files = {f.sha256: f.size for f in seen.artifact.files}
    here = sum(size for sha256, size in files.items() if store.has(sha256, size))
    total = sum(f.size for f in seen.artifact.files)
    part = Part(request.name, "image", request.reference, len(seen.artifact.files), total, here)
    try:
        return LookedImage(request, part, cuda.claims(seen.config))
    except FormatError as e:
        raise IntegrityError(
            "source.image",
            f"{request.reference} has no sound configuration",
            why=f"{e.where}: {e.why}",
            do="choose another image, or tell its publisher",
        ) from e


def judge(request: Request, looked: LookedImage, facts: Facts | None) -> Iterator[Judgement]:
    """Against the driver that was measured, else against the accelerator that is asked for."""
    name, claims = looked.request.reference, looked.claims
    kind, _, major = request.target.accelerator.partition("-")
    if claims is None:
        text = f"{name}: what it needs of the driver is unknown, its registry did not answer"
        yield Judgement(True, "image", text, warning=True)
    elif kind != "cuda":
        if claims.any:
            text = f"{name} is made for CUDA {claims.needs}".rstrip()
            text += f", and the target is {request.target.accelerator}"
            yield Judgement(True, "image", f"{text}: a smaller tag may do", warning=True)
    elif not claims.any:
        if _serves(request, looked.request):
            text = f"{name} does not say that it is made for CUDA: the GPUs may stay unused"
            yield Judgement(True, "image", text, warning=True)
    elif facts is None:
        yield from _against_target(name, claims, major)
    elif facts.nvidia is not None:
        yield from _against_driver(name, claims, facts.nvidia)


def _serves(request: Request, image: ImageRequest) -> bool:
    """Whether it is what the engine runs in; without a serving plan nobody knows."""
    serve = request.serve
    return serve is None or (serve.runtime == "image" and serve.image in (None, image.name))


def _against_target(name: str, claims: Claims, major: str) -> Iterator[Judgement]:
    needs = claims.needs
    if needs and cuda.version(needs)[:1] > (int(major),):
        text = f"{name} is made for CUDA {needs}, and the target is cuda-{major}"
        do = f"a tag built for CUDA {major}, or measure the host"
        yield Judgement(True, "image", f"{text}: take {do}", warning=True)


def _against_driver(name: str, claims: Claims, nvidia: Nvidia) -> Iterator[Judgement]:
    """The first thing that does not suit; else that it does, and what is to be known of it."""
    if claims.unclear:
        text = f"{name}: its {', '.join(claims.unclear)[:100]} cannot be understood"
        yield Judgement(False, "image", text, "choose another tag, or tell its publisher")
        return
    if nvidia.cuda is None:
        text = f"{name}: the driver does not tell which CUDA it runs"
        yield Judgement(True, "image", text, warning=True)
        return
    yield _met(name, claims, nvidia, nvidia.cuda)
    if claims.capabilities is not None and not claims.capabilities & {"compute", "all"}:
        asked = ",".join(sorted(claims.capabilities))[:60] or "nothing"
        text = f"{name} asks the driver for {asked}, and not for compute"
        yield Judgement(True, "image", text, warning=True)


def _met(name: str, claims: Claims, nvidia: Nvidia, have: str) -> Judgement:
    runs = f"driver {nvidia.driver} runs CUDA up to {have}"
    arch = min((g.compute_capability for g in nvidia.gpus), key=cuda.version, default="")
    host: Mapping[str, str] = {"cuda": have, "driver": nvidia.driver, "arch": arch}
    newer = f" for CUDA {claims.needs}" if claims.needs else ""
    do = f"choose a tag built for CUDA {have} or older, or install a newer driver{newer}"
    own = False
    for requirement in (claims.requirements or {}).values():
        verdict = cuda.met(requirement, host)
        consumer = any(word in g.model for g in nvidia.gpus for word in _CONSUMER)
        if verdict is False or (verdict is None and consumer):
            text = f"{name} requires {cuda.text(requirement)[:200]}; {runs}"
            return Judgement(False, "image", text, do if _of_driver(requirement) else _OTHER_GPU)
        own = own or verdict is None
    if own:
        text = f"{name} is made for CUDA {claims.needs}; {runs}: it runs only with the"
        text += " compatibility libraries that it brings, on data-centre GPUs"
        return Judgement(True, "image", text, warning=True)
    built, runnable = cuda.version(claims.version or "0"), cuda.version(have)
    if built[:1] > runnable[:1]:
        return Judgement(False, "image", f"{name} is built for CUDA {claims.version}; {runs}", do)
    if built[:2] > runnable[:2]:
        text = f"{name} is built for CUDA {claims.version}; {runs}: what compiles for the GPU at"
        return Judgement(True, "image", f"{text} start needs the newer driver", warning=True)
    return Judgement(True, "image", f"{name} suits: CUDA {claims.needs or 'of any kind'}; {runs}")


def _of_driver(requirement: Requirement) -> bool:
    """Whether another driver, or an image for another CUDA, could meet it."""
    return any(t.name in ("cuda", "driver") for terms in requirement for t in terms)
