"""The manifest: what officers approve. One TUF target, `NAME/VERSION.manifest.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from airgap.errors import FormatError
from airgap.format.artifact_rules import check_artifacts, check_serve, pick
from airgap.format.artifacts import Adapter, Artifact, Image, Model, PlainFiles, Wheels
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import (
    Blake3,
    FileSize,
    Line,
    Name,
    Release,
    Seconds,
    Serve,
    Sha256,
    Target,
    Version,
    Waiver,
)

EVIDENCE_KINDS = ("bom", "coverage", "findings", "lock", "policy", "provenance")


@dataclass(frozen=True, kw_only=True)
class Evidence(Document):
    """A piece of evidence: an ordinary blob of the bundle."""

    kind: Annotated[str, Choice(EVIDENCE_KINDS)]
    sha256: Sha256
    blake3: Blake3
    size: FileSize


@dataclass(frozen=True)
class Blob:
    """Identity and size of one payload blob, whatever refers to it."""

    sha256: str
    blake3: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Manifest(Document):
    """Everything that an approval covers. `lock` is the lock's SHA-256."""

    schema: Annotated[str, Choice(("sealift.manifest/1",))] = "sealift.manifest/1"
    name: Name
    version: Version
    summary: Line
    release: Release
    created: Seconds
    not_after: Seconds
    audience: tuple[Name, ...]
    handling: Line
    target: Target
    artifacts: tuple[Artifact, ...]
    evidence: tuple[Evidence, ...]
    serve: Serve | None = None
    waivers: tuple[Waiver, ...] = ()

    def validate(self) -> None:
        check_artifacts(self.artifacts)
        check_serve(self.serve, self.artifacts)
        kinds = [e.kind for e in self.evidence]
        if kinds != sorted(set(kinds)):
            raise FormatError(
                "format.value", "evidence", "the evidence is not sorted, each kind once"
            )
        if self.serve is not None and self.serve.failover == self.name:
            raise FormatError("format.value", "serve.failover", "it cannot stand in for itself")
        if self.not_after <= self.created:
            raise FormatError("format.value", "not-after", "it ends before it begins")
        self._check_one_size_each()

    def _check_one_size_each(self) -> None:
        seen: dict[str, Blob] = {}
        for blob in self._all_blobs():
            if seen.setdefault(blob.sha256, blob) != blob:
                raise FormatError(
                    "format.value", "artifacts", f"{blob.sha256[:12]} has two sizes or BLAKE3s"
                )

    def _all_blobs(self) -> Iterator[Blob]:
        for e in self.evidence:
            yield Blob(e.sha256, e.blake3, e.size)
        for artifact in self.artifacts:
            for f in artifact.files:
                yield Blob(f.sha256, f.blake3, f.size)

    def blobs(self) -> tuple[Blob, ...]:
        """Every payload blob once, evidence first, then artifacts in order: the carrier's order."""
        return tuple(dict.fromkeys(self._all_blobs()))

    def evidence_of(self, kind: str) -> Evidence:
        """The evidence of that kind; FormatError when the manifest has none."""
        for e in self.evidence:
            if e.kind == kind:
                return e
        raise FormatError("format.value", "evidence", f"the manifest names no '{kind}' evidence")

    def model_to_serve(self) -> Model:
        """The model that the serving plan means."""
        models = [a for a in self.artifacts if isinstance(a, Model)]
        return pick(models, "model", self.serve.model if self.serve else None, "serve.model")

    def wheels_to_serve(self) -> Wheels:
        """The wheels that the serving plan means."""
        wheels = [a for a in self.artifacts if isinstance(a, Wheels)]
        return pick(wheels, "wheels", self.serve.wheels if self.serve else None, "serve.wheels")

    def image_to_serve(self) -> Image:
        """The image that the serving plan means."""
        images = [a for a in self.artifacts if isinstance(a, Image)]
        return pick(images, "image", self.serve.image if self.serve else None, "serve.image")

    def adapters_to_serve(self) -> tuple[Adapter, ...]:
        """The adapters that the serving plan names, in its order."""
        found = {a.name: a for a in self.artifacts if isinstance(a, Adapter)}
        return tuple(found[name] for name in (self.serve.adapters if self.serve else ()))

    def plain_files(self, name: str) -> PlainFiles:
        """The plain files called `name`."""
        files = [a for a in self.artifacts if isinstance(a, PlainFiles)]
        return pick(files, "files", name, "serve")

    def gateway_wheels(self) -> Wheels | None:
        """The wheels of the gateway, when the serving plan has one that runs from wheels."""
        if self.serve is None or self.serve.gateway is None or self.serve.gateway.wheels is None:
            return None
        wheels = [a for a in self.artifacts if isinstance(a, Wheels)]
        return pick(wheels, "wheels", self.serve.gateway.wheels, "serve.gateway.wheels")

    def gateway_image(self) -> Image | None:
        """The image of the gateway, when the serving plan has one that runs from an image."""
        if self.serve is None or self.serve.gateway is None or self.serve.gateway.image is None:
            return None
        images = [a for a in self.artifacts if isinstance(a, Image)]
        return pick(images, "image", self.serve.gateway.image, "serve.gateway.image")

    def images_to_run(self) -> tuple[Image, ...]:
        """Every image that the serving plan starts containers of, each once."""
        inside = self.serve is not None and self.serve.runtime == "image"
        found = {i.digest: i for i in ([self.image_to_serve()] if inside else [])}
        gateway = self.gateway_image()
        if gateway is not None:
            found.setdefault(gateway.digest, gateway)
        return tuple(found.values())

    @property
    def target_path(self) -> str:
        """Where it stands in TUF targets metadata and under `trust/targets/`."""
        return f"{self.name}/{self.version}.manifest.json"
