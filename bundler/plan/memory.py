"""The memory that serving takes: of the GPUs, or of the host itself where there are none."""

from __future__ import annotations

from dataclasses import dataclass

from airgap import limits
from airgap.engines import registry as engines
from airgap.format.facts import Facts
from airgap.format.request import Request
from airgap.format.types import Serve
from bundler.plan import fit
from bundler.plan.fit import Demand, Fit
from bundler.plan.model import Looked


@dataclass(frozen=True)
class Machine:
    """Where it is to be served: bytes of each GPU, or of the host for `cpu`. What was not measured
    is empty or None."""

    cpu: bool
    gpus: tuple[int, ...] = ()
    memory: int | None = None

    @classmethod
    def of(cls, request: Request, facts: Facts | None) -> Machine:
        """What the request aims at, on the host that was measured."""
        if request.target.accelerator == "cpu":
            return cls(True, memory=facts.memory if facts else None)
        return cls(False, facts.gpu_memory() if facts else ())


@dataclass(frozen=True)
class Memory:
    """What serving takes of GPU memory, or of the host's own on a CPU. `found` is None where the
    host was not measured; then `common` says which GPUs would do. `ways`: what would make it fit
    with these weights; `estimate`: which others would."""

    model: Looked
    wanted: Demand
    found: Fit | None
    ways: list[str]
    common: list[str]
    estimate: list[str]
    on_cpu: int | None = None
    cpu_memory: int | None = None

    @property
    def fits(self) -> bool:
        """Also true where nothing was measured to compare with."""
        if self.on_cpu is not None and self.cpu_memory is not None:
            return self.on_cpu <= self.cpu_memory
        return self.found is None or self.found.fits

    @property
    def sequences(self) -> int | None:
        """How many of the full context fit at once; None where nobody can say."""
        if self.found is not None and self.found.cache_per_sequence:
            return self.found.sequences
        cache = self.wanted.cache(1)
        if self.cpu_memory is None or not cache:
            return None
        left = self.cpu_memory - self.model.weights.total - fit.RESERVE_BYTES
        return max(0, left) // cache


def reckon(serve: Serve, model: Looked, machine: Machine) -> Memory:
    """`model` served as `serve` says, there."""
    wanted = fit.demand(serve, model.weights, model.attention)
    if machine.cpu:
        return _on_cpu(serve, model, wanted, machine.memory)
    if not machine.gpus:
        return Memory(model, wanted, None, [], fit.smallest(wanted), [])
    gpus = serve.tensor_parallel
    found = fit.fit(wanted, gpus, min(machine.gpus[:gpus]))
    if found.fits:
        return Memory(model, wanted, found, [], [], [])
    room = found.usable - found.reserve - found.cache_per_sequence
    guess = fit.estimate(wanted.weights, found.weights, room)
    return Memory(model, wanted, found, fit.ways_out(wanted, found, len(machine.gpus)), [], guess)


def _on_cpu(serve: Serve, model: Looked, wanted: Demand, memory: int | None) -> Memory:
    plans = engines.named(serve.engine).plans_sequences
    cache = wanted.cache(1)
    if plans:
        cache = (serve.kv_cache_gib or 0) << 30 or cache * (wanted.sequences or 1)
    total = model.weights.total
    needs = total + cache + fit.RESERVE_BYTES
    ways: list[str] = []
    guess: list[str] = []
    if memory is not None and needs > memory:
        left = (memory - total - fit.RESERVE_BYTES) // limits.GIB
        if plans and left > 0 and left * limits.GIB >= wanted.cache(1):
            ways.append(f"kv-cache-gib = {left} fits; more sequences wait")
        room = memory - cache - fit.RESERVE_BYTES
        guess = fit.estimate(wanted.weights, total, room, fit.QUANTISED_ON_CPU)
    return Memory(model, wanted, None, ways, [], guess, needs, memory)
