"""The plan as text for people, and as one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airgap.events import Line
from airgap.render import harmless, line_text, size_text
from bundler.plan.memory import Memory
from bundler.plan.reckon import Plan
from bundler.plan.sizes import Part
from bundler.plan.variants import Suggested, Variant

_NAMES = {"usb": "USB stick of 64 GB", "dvd": "DVD", "bd": "Blu-ray disc of 25 GB"}


def text(plan: Plan) -> str:
    """Everything, one fact a line. Sources name some of it: no name makes a line of its own."""
    lines = [harmless(line_text(line).rstrip()).replace("\n", "\\n") for line in _lines(plan)]
    return "\n".join(lines) + "\n"


def _lines(plan: Plan) -> Iterator[Line]:
    for part in plan.parts:
        yield Line(part.kind, _part(part))
    least = "" if plan.complete else "at least "
    left = "" if plan.download == plan.total else f", {size_text(plan.download)} to download"
    yield Line("payload", f"{least}{plan.total:,} bytes ({size_text(plan.total)}){left}")
    counts = (f"{n} x {_NAMES[m]}" for m, n in plan.media.items())
    yield Line("media", least + ", or ".join(counts))
    yield Line("NO" if plan.disk.lacking else "disk", _disk(plan, least))
    if plan.disk.lacking:
        yield Line("", f"do: free {plan.disk.lacking:,} bytes there, or name another --root there")
    if plan.memory is not None:
        yield from _memory(plan.memory)
        yield from _variants(plan)
        for way in plan.ways:
            yield Line("", f"do: {way}")
    for judged in plan.judged:
        label = "warn" if judged.warning else "fits" if judged.fits else "NO"
        yield Line(label, f"{judged.what}: {judged.text}")
        if not judged.fits and judged.do:
            yield Line("", f"do: {judged.do}")


def _part(part: Part) -> str:
    least = "at least " if part.unknown else ""
    size = f"{part.files} files, {least}{part.bytes:,} bytes" if part.files else "size unknown"
    here = f", {size_text(part.here)} here already" if part.here else ""
    note = f" ({part.note})" if part.note else ""
    return f"{part.name}: {size}{here}, {part.source}{note}"


def _disk(plan: Plan, least: str) -> str:
    d = plan.disk
    needs = f"the host needs {least}{d.imported:,} bytes for the import"
    needs += f" and about {size_text(d.unpacked)} to unpack" if d.unpacked else ""
    if d.free is None:
        return f"{needs}; nobody measured what it has (--host host.json)"
    verdict = f"{d.lacking:,} bytes are lacking" if d.lacking else "enough"
    if least and not d.lacking:
        verdict += " for what is known"
    return f"{needs}; it has {size_text(d.free)} free: {verdict}"


def _memory(m: Memory) -> Iterator[Line]:
    w, a = m.model.weights, m.model.attention
    kind = f"{size_text(w.total)} of weights ({w.dtype})"
    if a is None:
        yield Line("memory", f"{kind}; its cache is not known: config.json names no such layers")
    else:
        per_token = a.bytes_per_sequence(1, m.wanted.value_bytes)
        cache = size_text(m.wanted.cache(1))
        text = f"{kind}; {cache} of cache for {m.wanted.tokens} tokens, {per_token:,} bytes each"
        yield Line("memory", text)
    if m.on_cpu is not None:
        has = f", it has {size_text(m.cpu_memory)}" if m.cpu_memory is not None else ""
        label = "host" if m.fits else "NO"
        yield Line(label, f"needs {size_text(m.on_cpu)} of its own memory{has}")
    elif m.found is None:
        for line in m.common:
            yield Line("GPU", line)
    else:
        yield from _gpu(m)


def _gpu(m: Memory) -> Iterator[Line]:
    f = m.found
    assert f is not None  # noqa: S101 - the caller looked
    needs = f"{size_text(f.weights)} of weights, {size_text(f.reserve)} for the engine"
    room = f"{f.gpus} x {size_text(f.memory)}, {size_text(f.usable)} of each usable"
    text = f"{room}; each holds {needs}"
    if f.cache_per_sequence:
        text += f", {size_text(f.cache_per_sequence)} of cache a sequence"
    yield Line("GPU" if f.fits else "NO", text)
    if not f.fits:
        yield Line("", f"{f.lacking:,} bytes are lacking on each GPU")
    elif f.cache_per_sequence:
        asked = m.wanted.sequences
        said = f"{f.sequences} sequences of {m.wanted.tokens} tokens fit at once"
        if asked and f.sequences < asked:
            said += f"; of the {asked} of max-num-seqs the others wait when all are that long"
        yield Line("", said)


def _variants(plan: Plan) -> Iterator[Line]:
    found = plan.suggested
    if found is None:
        return
    if found.error:
        yield Line("variants", f"not all are known: {found.error}")
    for variant in found.variants:
        yield Line("fits" if variant.memory.fits else "too large", _variant(variant))
    for left in found.left:
        yield Line("", f"not {left.repo}: {left.why[:200]}")
    if found.variants:
        yield Line(
            "", "that they are made of this model is what their own cards say: who made them?"
        )


def _variant(v: Variant) -> str:
    m = v.memory
    named = f"{v.repo} {v.include}" if v.include else v.repo
    text = f"variant {named} at {v.commit}: {v.method}, {m.model.weights.total:,} bytes of weights"
    if m.fits and m.sequences is not None:
        text += f", {m.sequences} sequences of {m.wanted.tokens} tokens fit at once"
    elif m.found is not None and not m.fits:
        text += f", {m.found.lacking:,} bytes are lacking on each GPU"
    elif m.on_cpu is not None and not m.fits:
        text += f", needs {size_text(m.on_cpu)}"
    return f"{text}; {v.downloads:,} downloads lately"


def as_json(plan: Plan) -> dict[str, Any]:
    """The same, in numbers of bytes."""
    return {
        "fits": plan.fits,
        "name": plan.request.name,
        "version": plan.request.version,
        "target": plan.request.target.to_json(),
        "parts": [vars(p) for p in plan.parts],
        "payload": plan.total,
        "complete": plan.complete,
        "download": plan.download,
        "media": plan.media,
        "disk": {**vars(plan.disk), "lacking": plan.disk.lacking},
        "memory": _memory_json(plan.memory, plan.ways) if plan.memory else None,
        "variants": _variants_json(plan.suggested) if plan.suggested else None,
        "judged": [vars(j) for j in plan.judged],
    }


def _variants_json(found: Suggested) -> dict[str, Any]:
    return {
        "error": found.error or None,
        "found": [_variant_json(v) for v in found.variants],
        "left": [vars(one) for one in found.left],
    }


def _variant_json(v: Variant) -> dict[str, Any]:
    return {
        "repo": v.repo,
        "revision": v.commit,
        "include": [v.include] if v.include else [],
        "method": v.method,
        "weights": v.memory.model.weights.total,
        "download": v.memory.model.part.bytes,
        "downloads": v.downloads,
        "publisher": v.publisher,
        "same-publisher": v.same_publisher,
        "fits": v.memory.fits,
        "sequences": v.memory.sequences,
        "lacking": v.memory.found.lacking if v.memory.found else None,
    }


def _memory_json(m: Memory, ways: list[str]) -> dict[str, Any]:
    f = m.found
    return {
        "fits": m.fits,
        "weights": m.model.weights.total,
        "dtype": m.model.weights.dtype,
        "tokens": m.wanted.tokens,
        "cache-per-sequence": m.wanted.cache(1),
        "gpu": {**vars(f), "fits": f.fits, "lacking": f.lacking} if f else None,
        "host-memory": m.on_cpu,
        "ways-out": ways,
        "common-gpus": m.common,
    }
