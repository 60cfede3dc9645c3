"""The request: what is wanted. People write it as TOML in `manifests/NAME.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from airgap.errors import FormatError
from airgap.format.codec import Document
from airgap.format.rules import Range, Text
from airgap.format.types import (
    Line,
    Name,
    OciPlatform,
    Release,
    Serve,
    Sha256,
    Target,
    TargetAccelerator,
    TargetPlatform,
    TargetPython,
    Version,
    Waiver,
)

Glob = Annotated[str, Text(r"[^\x00-\x1f\\]+", 200, "a pattern such as *.safetensors")]
Requirement = Annotated[str, Text(r"[^\x00-\x1f]+", 300, "a requirement such as vllm==0.32.0")]
Place = Annotated[str, Text(r"[^\x00-\x1f]+", 1024, "a path or URL")]
Day = Annotated[str, Text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", 10, "a day such as 2026-11-01")]


@dataclass(frozen=True, kw_only=True)
class SourceRequest(Document):
    """A tree of files: `path` is a local folder or file, `repo` a Hugging Face repository.

    A relative `path` is taken from the request's own folder. `label` is how the source is called
    in the lock; a path of this machine is never written there.
    """

    path: Place | None = None
    repo: Annotated[str, Text(r"[\w.-]+/[\w.-]+", 200, "an owner/name repository")] | None = None
    revision: Annotated[str, Text(r"[\w./-]+", 200, "a branch, tag or commit")] = "main"
    label: Line | None = None
    include: tuple[Glob, ...] = ()
    exclude: tuple[Glob, ...] = ()
    publisher: Line | None = None
    licence: Line | None = None

    def validate(self) -> None:
        if (self.path is None) == (self.repo is None):
            raise FormatError("format.value", "", "give exactly one of 'path' and 'repo'")


@dataclass(frozen=True, kw_only=True)
class ModelRequest(SourceRequest):
    """A model."""

    name: Name = "model"


@dataclass(frozen=True, kw_only=True)
class AdapterRequest(SourceRequest):
    """A LoRA adapter for the model `base` of this request, the only one when left out."""

    name: Name
    base: Name | None = None


@dataclass(frozen=True, kw_only=True)
class FileRequest(Document):
    """One plain file. Those of one `name` form one artifact; `path` is its place in it, the last
    part of the URL when left out."""

    name: Name = "files"
    url: Place
    sha256: Sha256
    path: Place | None = None


@dataclass(frozen=True, kw_only=True)
class PinnedIndex(Document):
    """An index that is asked for these packages and nothing else, and is the only one asked for
    them: PyTorch's, for example. Each package also stands in `requirements`."""

    index: Annotated[str, Text(r"(https?|file)://[^\s\x00-\x1f\"]+", 1024, "an index's URL")]
    packages: tuple[Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", 100, "a name")], ...]


@dataclass(frozen=True, kw_only=True)
class WheelsRequest(Document):
    """Wheels that `uv` resolves for the target, or a PEP 751 lock that was resolved elsewhere.
    Further indexes and find-links come after pip's; `pinned` before all."""

    name: Name = "wheels"
    requirements: tuple[Requirement, ...] = ()
    pylock: Place | None = None
    constraints: tuple[Requirement, ...] = ()
    overrides: tuple[Requirement, ...] = ()
    index: tuple[Place, ...] = ()
    pinned: tuple[PinnedIndex, ...] = ()
    find_links: tuple[Place, ...] = ()
    newest: Day | None = None

    def validate(self) -> None:
        if self.pylock is None and not self.requirements:
            raise FormatError("format.value", "requirements", "name at least one requirement")
        for key in ("requirements", "constraints", "overrides", "index", "pinned", "find_links"):
            if self.pylock is not None and getattr(self, key):
                why = "a pylock is resolved already: give it alone, with 'newest' at most"
                raise FormatError("format.value", key.replace("_", "-"), why)


@dataclass(frozen=True, kw_only=True)
class ImageRequest(Document):
    """A container image by reference, for one platform. `insecure`: its registry speaks plain HTTP
    and is not this machine; every byte is checked against its digest all the same."""

    name: Name = "image"
    reference: Place
    platform: OciPlatform
    insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class TargetRequest(Document):
    """`[target]` as people write it: the three keys, or `facts`, the file that `airgap facts` wrote
    on the isolated host. Beside `facts` a key that is written decides, and must be one that the
    host can run. The request that is locked always has the `Target` that was made of this.
    """

    facts: Place | None = None
    python: TargetPython | None = None
    platform: TargetPlatform | None = None
    accelerator: TargetAccelerator | None = None

    def validate(self) -> None:
        for key in ("python", "platform", "accelerator"):
            if self.facts is None and getattr(self, key) is None:
                raise FormatError("format.missing-key", key, "give it, or 'facts' of the host")


@dataclass(frozen=True, kw_only=True)
class Request(Document):
    """The whole request; the lock keeps its SHA-256.

    `release` orders versions of one NAME; left out, it is one more than the newest approved one.
    `valid-days`: how long the manifest may be installed after it was locked.
    """

    name: Name
    version: Version
    summary: Line = ""
    release: Release | None = None
    valid_days: Annotated[int, Range(1, 3650)] = 180
    audience: tuple[Name, ...] = ()
    handling: Line = ""
    target: Target
    model: tuple[ModelRequest, ...] = ()
    adapter: tuple[AdapterRequest, ...] = ()
    wheels: tuple[WheelsRequest, ...] = ()
    image: tuple[ImageRequest, ...] = ()
    file: tuple[FileRequest, ...] = ()
    serve: Serve | None = None
    waive: tuple[Waiver, ...] = ()

    def validate(self) -> None:
        names = [m.name for m in self.model]
        names += [w.name for w in self.wheels]
        names += [i.name for i in self.image]
        names += [a.name for a in self.adapter]
        names += dict.fromkeys(f.name for f in self.file)
        if not names:
            raise FormatError("format.value", "", "it asks for nothing: add a [[model]]")
        for name in names:
            if names.count(name) > 1:
                raise FormatError(
                    "format.value", "name", f"two artifacts are called '{name}': name one of them"
                )
