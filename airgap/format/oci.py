"""OCI and Docker image documents, read strictly and judged on their own: bytes in, values out.

A registry answers with whatever it likes, so every field that decides what is fetched, mapped or
run is checked here, once, for the lock, the scanner and the isolated host alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airgap.errors import FormatError
from airgap.format import canonical

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = (OCI_INDEX, DOCKER_LIST)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
_CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
# How the bytes of a layer are packed, by its media type. What is not here is not carried.
LAYER_TYPES = {
    "application/vnd.oci.image.layer.v1.tar": "tar",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd": "zstd",
    "application/vnd.docker.image.rootfs.diff.tar": "tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": "zstd",
}
# The distribution specification asks registries to take 4 MiB; nothing real comes near.
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
# A configuration holds the history too; the largest seen have some 100 KB.
MAX_CONFIG_BYTES = 8 * 1024 * 1024
# overlayfs takes 500 lower folders.
MAX_LAYERS = 500
MAX_INDEX_ENTRIES = 1000
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Descriptor:
    """One reference to a blob: what it claims to be, its identity, its size in bytes."""

    media_type: str
    sha256: str
    size: int
    artifact_type: str = ""


@dataclass(frozen=True)
class Manifest:
    """An image's (or an artifact's) manifest. `subject` is the manifest that it speaks about."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str = ""
    subject: Descriptor | None = None
    annotations: tuple[tuple[tuple[str, str], ...], ...] = ()

    def layer_annotation(self, number: int, key: str) -> str | None:
        """An annotation of layer `number`."""
        return dict(self.annotations[number]).get(key)


@dataclass(frozen=True)
class IndexEntry:
    """One line of an index; `platform` is `os/architecture[/variant]`, empty when it names none."""

    descriptor: Descriptor
    platform: str


@dataclass(frozen=True)
class Config:
    """What a configuration says of the image: where it runs, what its layers unpack to."""

    platform: str
    diff_ids: tuple[str, ...]
    user: str
    command: tuple[str, ...]
    environment: Mapping[str, str]


def media_type_of(data: bytes, told: str, *, default: str = "") -> str:
    """The type of a manifest or index: what the document says of itself, else what the registry
    said (`Content-Type`), else `default`. Raises FormatError when both speak and differ."""
    document = _table(canonical.decode(data, max_bytes=MAX_MANIFEST_BYTES), "")
    own = document.get("mediaType")
    told = told.partition(";")[0].strip()
    known = (*INDEX_TYPES, *MANIFEST_TYPES)
    if own is None:
        own = told or default
    if not isinstance(own, str) or own not in known:
        raise FormatError("format.value", "mediaType", f"{ascii(own)[:100]} is no image or index")
    if told in known and told != own:
        raise FormatError(
            "format.value", "mediaType", f"the registry says {told}, the document says {own}"
        )
    if ("manifests" in document) == ("layers" in document):
        raise FormatError("format.value", "mediaType", "it is not one of index and manifest")
    if ("manifests" in document) != (own in INDEX_TYPES):
        raise FormatError("format.value", "mediaType", f"it is not what its type {own} says")
    return own


def read_index(data: bytes) -> tuple[IndexEntry, ...]:
    """The entries of an index, in order."""
    document = _table(canonical.decode(data, max_bytes=MAX_MANIFEST_BYTES), "")
    _schema(document)
    entries = _list(document, "manifests", MAX_INDEX_ENTRIES)
    return tuple(_entry(e, f"manifests[{i}]") for i, e in enumerate(entries))


def _entry(value: Any, where: str) -> IndexEntry:
    table = _table(value, where)
    platform = _table(table.get("platform") or {}, f"{where}.platform")
    return IndexEntry(_descriptor(table, where), _platform(platform, f"{where}.platform"))


def read_manifest(data: bytes, media_type: str) -> Manifest:
    """An image manifest or an artifact's. What only an image may hold, `check_image` says."""
    document = _table(canonical.decode(data, max_bytes=MAX_MANIFEST_BYTES), "")
    _schema(document)
    layers = [_table(x, f"layers[{i}]") for i, x in enumerate(_list(document, "layers"))]
    subject = document.get("subject")
    return Manifest(
        media_type=media_type,
        config=_descriptor(_table(document.get("config"), "config"), "config"),
        layers=tuple(_descriptor(x, f"layers[{i}]") for i, x in enumerate(layers)),
        artifact_type=_text(document, "artifactType", "", default=""),
        subject=_descriptor(_table(subject, "subject"), "subject") if subject else None,
        annotations=tuple(_annotations(x, f"layers[{i}]") for i, x in enumerate(layers)),
    )


def check_image(manifest: Manifest) -> None:
    """It is a container image whose every layer can be carried. Raises FormatError."""
    if manifest.config.media_type not in _CONFIG_TYPES:
        why = f"{ascii(manifest.config.media_type)[:100]} is no container image's configuration"
        raise FormatError("format.value", "config.mediaType", why)
    if manifest.config.size > MAX_CONFIG_BYTES:
        raise FormatError("format.value", "config.size", f"over {MAX_CONFIG_BYTES} bytes")
    if not manifest.layers:
        raise FormatError("format.value", "layers", "the image has no layers")
    for i, layer in enumerate(manifest.layers):
        if layer.media_type not in LAYER_TYPES:
            why = f"{ascii(layer.media_type)[:100]} cannot be carried"
            if "foreign" in layer.media_type or "nondistributable" in layer.media_type:
                why = "it is a foreign layer: its bytes lie outside the registry"
            raise FormatError("format.value", f"layers[{i}].mediaType", why)


def read_config(data: bytes) -> Config:
    """An image's configuration."""
    document = _table(canonical.decode(data, max_bytes=MAX_CONFIG_BYTES), "")
    rootfs = _table(document.get("rootfs"), "rootfs")
    if rootfs.get("type") != "layers":
        raise FormatError("format.value", "rootfs.type", "it is not 'layers'")
    inner = _table(document.get("config") or {}, "config")
    command = [*(inner.get("Entrypoint") or []), *(inner.get("Cmd") or [])]
    if not all(isinstance(c, str) for c in command):
        raise FormatError("format.value", "config.Cmd", "it is no list of words")
    ids = _list(rootfs, "diff_ids", MAX_LAYERS)
    return Config(
        platform=_platform(document, ""),
        diff_ids=tuple(_sha256(x, f"rootfs.diff_ids[{i}]") for i, x in enumerate(ids)),
        user=_text(inner, "User", "config", default=""),
        command=tuple(command),
        environment=variables(inner.get("Env")),
    )


def variables(value: Any) -> dict[str, str]:
    """An image's `Env` by name; of two with one name the last counts, as in a container."""
    if value is None:
        return {}
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise FormatError("format.value", "config.Env", "it is no list of variables")
    return {name: text for name, _, text in (v.partition("=") for v in value)}


def same_platform(wanted: str, found: str) -> bool:
    """Whether `found` is the platform `wanted`. arm64 is v8 whether it says so or not."""
    return _plain(wanted) == _plain(found)


def _plain(platform: str) -> str:
    return platform.removesuffix("/v8") if platform.startswith("linux/arm64") else platform


def _platform(table: dict[str, Any], where: str) -> str:
    parts = [_text(table, k, where, default="") for k in ("os", "architecture", "variant")]
    return "/".join(p for p in parts if p)


def _descriptor(table: dict[str, Any], where: str) -> Descriptor:
    if table.get("urls"):
        raise FormatError(
            "format.value", f"{where}.urls", "it is a foreign blob: its bytes lie elsewhere"
        )
    size = table.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise FormatError("format.value", f"{where}.size", "it is no number of bytes")
    return Descriptor(
        media_type=_text(table, "mediaType", where),
        sha256=_sha256(table.get("digest"), f"{where}.digest"),
        size=size,
        artifact_type=_text(table, "artifactType", where, default=""),
    )


def _sha256(value: Any, where: str) -> str:
    found = _DIGEST.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise FormatError("format.value", where, "it is no sha256 digest; no other kind is taken")
    return found[1]


def _annotations(table: dict[str, Any], where: str) -> tuple[tuple[str, str], ...]:
    found = _table(table.get("annotations") or {}, f"{where}.annotations")
    if not all(isinstance(v, str) for v in found.values()):
        raise FormatError("format.value", f"{where}.annotations", "a value is no text")
    return tuple(sorted(found.items()))


def _schema(document: dict[str, Any]) -> None:
    if document.get("schemaVersion") != 2:
        raise FormatError("format.value", "schemaVersion", "it is not 2")


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FormatError("format.type", where, "it is no table")
    return value


def _list(table: dict[str, Any], key: str, limit: int = MAX_LAYERS) -> list[Any]:
    value = table.get(key)
    if not isinstance(value, list):
        raise FormatError("format.type", key, "it is no list")
    if len(value) > limit:
        raise FormatError("format.value", key, f"it has {len(value)} entries, {limit} are allowed")
    return value


def _text(table: dict[str, Any], key: str, where: str, default: str | None = None) -> str:
    value = table.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise FormatError("format.type", f"{where}.{key}".lstrip("."), "it is no text")
    return value
