"""Container images: manifest, configuration and layers agree, and no layer holds a trap.

Each layer is unpacked in passing and walked as a tar. Covered means: every byte was read, and the
engine will see what stands here. The programs in an image are not judged: officers approve the
publisher (signatures, registry), and the host runs them without privileges or a network.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from airgap.errors import FormatError
from airgap.format import oci
from airgap.format.evidence import Finding
from bundler.scan import attached, bounds, layers
from bundler.scan.ahead import Ahead
from bundler.scan.image_keys import load_keys
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.memory import Task, proven
from bundler.scan.report import Fault, finding, shown

NAME = attached.NAME
_SHOWN_FILES = 8
# Variables by which an image changes what an engine or a gateway loads, allows or asks for.
_LOADS = re.compile(
    r"LD_(?!LIBRARY_PATH$)|PYTHON(?!DONTWRITE|UNBUFFERED|IOENC|_)|VLLM_|LLAMA_"
    r"|LITELLM_|DATABASE_URL$|STORE_MODEL_IN_DB$|CONFIG_FILE_PATH$|(?i:https?_proxy$|all_proxy$)"
)
# Folders that a container of ours can write to.
_WRITABLE = re.compile(r"/(tmp|var/tmp|run|dev/shm|home|var/lib/airgap)(/|$)")


class ImageScanner:
    """Reads every file of an image artifact. `keys`: PEM public keys; it tells what they signed;
    UsageError `policy.image-key` for one that is none."""

    name = NAME

    def __init__(self, keys: Sequence[str] = (), ahead: Ahead | None = None) -> None:
        self._keys = load_keys(keys)
        self._ahead = ahead or Ahead()

    def version(self) -> str:
        """The check is ours; its number goes up when it refuses more or less."""
        return "image-check 3"

    def scan(self, artifact: Sequence[Subject], on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up every file of an image artifact; layers tell of their bytes."""
        result = ScanResult()
        by_path = {str(s.path): s for s in artifact if s.artifact_kind == "image"}
        if not by_path:
            return result
        own = by_path.get("manifest.json")
        try:
            manifest = _manifest(own)
            config = _agreed(manifest, by_path)
        except (Fault, FormatError) as e:
            attached.refuse(result, by_path.values(), own, e)
            return result
        assert own is not None  # noqa: S101 - _manifest refused otherwise
        result.covered |= {by_path[p].path for p in ("manifest.json", "config.json")}
        if "index.json" in by_path:
            result.covered.add(by_path["index.json"].path)
        text = f"runs {shown(' '.join(config.command))} as user {shown(config.user or 'root')}"
        result.findings.append(finding(NAME, own, "image.runs", "info", text))
        result.findings += _environment(own, config)
        self._layers(manifest, config, by_path, result, on_bytes)
        self._attached(by_path, result)
        return result

    def _layers(
        self,
        manifest: oci.Manifest,
        config: oci.Config,
        by_path: Mapping[str, Subject],
        result: ScanResult,
        on_bytes: OnBytes,
    ) -> None:
        """On as many threads as there are cores: unpacking and hashing let the others run."""
        work = [
            (by_path[_layer_path(i)], oci.LAYER_TYPES[layer.media_type], config.diff_ids[i])
            for i, layer in enumerate(manifest.layers)
        ]
        with ThreadPoolExecutor(min(os.cpu_count() or 1, len(work))) as pool:
            for subject, found in zip(
                (w[0] for w in work), pool.map(lambda w: self._layer(*w), work), strict=True
            ):
                if isinstance(found, Fault):
                    result.findings.append(finding(NAME, subject, found.id, "high", found.message))
                    result.unscanned.append(Unscanned(subject.path, "it is not a sound layer"))
                else:
                    result.findings += found
                    result.covered.add(subject.path)
                on_bytes(subject.size)

    def _layer(self, subject: Subject, packing: str, diff_id: str) -> list[Finding] | Fault:
        found = self._ahead.result(task(subject.sha256, subject.file, packing))
        return _judge(subject, found, diff_id)

    def _attached(self, by_path: Mapping[str, Subject], result: ScanResult) -> None:
        """Signatures, attestations, bills of materials: sound, and whose word they are."""
        image = [by_path[p] for p in ("manifest.json", "index.json") if p in by_path]
        found = attached.scan(image, [s for s in by_path.values() if _beside(s.path)], self._keys)
        result.findings += found.findings
        result.covered |= found.covered
        result.unscanned += found.unscanned


def _manifest(own: Subject | None) -> oci.Manifest:
    if own is None:
        raise Fault("image.manifest", "the artifact has no manifest.json")
    data = _read(own)
    manifest = oci.read_manifest(data, oci.media_type_of(data, "", default=oci.OCI_MANIFEST))
    oci.check_image(manifest)
    return manifest


def _agreed(manifest: oci.Manifest, by_path: Mapping[str, Subject]) -> oci.Config:
    """The files are exactly those that the manifest names, and the configuration fits it."""
    wanted = {_layer_path(i): layer for i, layer in enumerate(manifest.layers)}
    wanted["config.json"] = manifest.config
    for path, told in wanted.items():
        found = by_path.get(path)
        if found is None or (found.sha256, found.size) != (told.sha256, told.size):
            raise Fault("image.manifest", f"{path} is not the blob that the manifest names")
    extra = {p for p in by_path if not _beside(PurePosixPath(p))} - wanted.keys()
    if extra - {"manifest.json", "index.json"}:
        raise Fault("image.manifest", f"{shown(min(extra))} belongs to no image")
    config = oci.read_config(_read(by_path["config.json"]))
    if len(config.diff_ids) != len(manifest.layers):
        raise Fault("image.config", "it names another number of layers than the manifest")
    if "index.json" in by_path:
        _check_index(by_path["index.json"], by_path["manifest.json"], config)
    return config


def _environment(own: Subject, config: oci.Config) -> list[Finding]:
    """What the image has every program of it load, or look for programs in: it stands before what
    the host closes by variables, which count for an engine that was not replaced."""
    out = []
    loads = sorted(n for n in config.environment if _LOADS.match(n))
    if loads:
        text = f"sets {shown(', '.join(loads)[:200])}: code or settings that the engine starts with"
        out.append(finding(NAME, own, "image.environment", "low", text))
    places = config.environment.get("PATH", "").split(":")
    loose = [p for p in places if p and (not p.startswith("/") or _WRITABLE.match(p))]
    if loose:
        text = f"looks for programs in {shown(loose[0])}, where the engine itself may write"
        out.append(finding(NAME, own, "image.search-path", "high", text))
    return out


def _check_index(index: Subject, own: Subject, config: oci.Config) -> None:
    """The index names this manifest, and for the platform that the configuration says."""
    data = _read(index)
    if oci.media_type_of(data, "", default=oci.OCI_INDEX) not in oci.INDEX_TYPES:
        raise Fault("image.manifest", "index.json calls itself something else than an index")
    for entry in oci.read_index(data):
        if entry.descriptor.sha256 == own.sha256:
            if not oci.same_platform(entry.platform, config.platform):
                text = f"the index says {shown(entry.platform)}, it is {shown(config.platform)}"
                raise Fault("image.platform", text)
            return
    raise Fault("image.manifest", "index.json does not name this image")


def task(sha256: str, file: Path, packing: str) -> Task[layers.Layer | Fault]:
    """Looking at one layer: what `unpack` finds depends on its bytes and its packing alone."""

    def work() -> layers.Layer | Fault:
        return proven(file, sha256, unpack(file, packing))

    return Task((NAME, sha256, packing), work, _kept, _back)


def _kept(found: layers.Layer | Fault) -> dict[str, Any] | None:
    return None if isinstance(found, Fault) else dataclasses.asdict(found)


def _back(said: Any) -> layers.Layer:
    hits = [(str(i), str(s), str(m)) for i, s, m in said["hits"]]
    setuid = [str(name) for name in said["setuid"]]
    counts = int(said["size"]), int(said["members"])
    return layers.Layer(str(said["diff_id"]), *counts, setuid=setuid, hits=hits)


def unpack(path: Path, packing: str) -> layers.Layer | Fault:
    """What lies in a layer, or the Fault that keeps it from being covered."""
    try:
        return layers.read(path, packing)
    except Fault as e:
        return e


def packings(manifest: Path) -> dict[str, str]:
    """How each layer that the manifest names is packed, by SHA-256; none where it is not sound."""
    try:
        data = manifest.read_bytes()
        found = oci.read_manifest(data, oci.media_type_of(data, "", default=oci.OCI_MANIFEST))
        oci.check_image(found)
    except (OSError, FormatError):
        return {}
    return {layer.sha256: oci.LAYER_TYPES[layer.media_type] for layer in found.layers}


def _judge(subject: Subject, found: layers.Layer | Fault, diff_id: str) -> list[Finding] | Fault:
    """Findings about a layer, or the Fault that keeps it from being covered."""
    if isinstance(found, Fault):
        return found
    if found.diff_id != diff_id:
        return Fault("image.diff-id", "unpacked it is not the layer that the configuration names")
    hits = [*found.hits]
    if found.setuid:
        names = ", ".join(shown(n) for n in sorted(found.setuid)[:_SHOWN_FILES])
        text = f"{len(found.setuid)} files run with more rights than their caller: {names}"
        hits.append(("image.setuid", "info", text))
    return [finding(NAME, subject, id, severity, message) for id, severity, message in hits]


def _read(subject: Subject) -> bytes:
    if subject.size > bounds.MAX_SIGNATURE_BYTES:
        raise Fault("image.manifest", f"{shown(subject.path)} has {subject.size} bytes")
    return proven(subject.file, subject.sha256, subject.file.read_bytes())


def _layer_path(number: int) -> str:
    return f"layers/{number:03}"


def _beside(path: PurePosixPath) -> bool:
    """Whether a file is one of a referrer's; the others are the image's own."""
    return path.parts[0] == attached.FOLDER and len(path.parts) > 2
