"""How a bundle lies on a medium: an OCI image layout 1.1 with a trust folder beside it.

Everything that is not a payload blob or officer-signed is a function of the manifest and is
regenerated here, so that a reader compares it byte for byte instead of parsing it.
Models are CNCF ModelPack artifacts (model-spec v1, raw layers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from airgap.format import canonical
from airgap.format.artifacts import Adapter, Artifact, Image, Model, PlainFiles, Wheels
from airgap.format.manifest import Manifest
from airgap.format.statement import rfc3339
from airgap.format.types import FileEntry

README, REPORT, SUMS = "README.txt", "REVIEW.html", "SHA256SUMS"
OCI_LAYOUT, INDEX, BLOBS = "oci-layout", "index.json", "blobs/sha256"
TRUST, METADATA, STATEMENTS, TARGETS = "trust", "metadata", "metadata/statements", "targets"

OCI_LAYOUT_BYTES = canonical.encode({"imageLayoutVersion": "1.0.0"})
EVIDENCE_REF = "EVIDENCE"  # artifact names are lower case, so it collides with none
_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
_MODEL = "application/vnd.cncf.model"
_EMPTY_TYPE, _EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
# Artifact type and type of each layer, for those that are nothing but their files.
_PLAIN: dict[type, tuple[str, str]] = {
    Wheels: ("application/vnd.sealift.wheels.v1+json", "application/vnd.pypa.wheel"),
    PlainFiles: ("application/vnd.sealift.files.v1+json", "application/octet-stream"),
}
_WEIGHTS = {".safetensors", ".gguf"}
_DOCS = {".md", ".txt", ".pdf"}
_EVIDENCE_TYPES = {
    "bom": "application/vnd.cyclonedx+json",
    "provenance": "application/vnd.in-toto+json",
}


@dataclass(frozen=True)
class Generated:
    """What a manifest makes of itself: index.json, and the small blobs that it refers to."""

    index: bytes
    blobs: Mapping[str, bytes]  # sha256 -> bytes


def bundle_folder(manifest: Manifest) -> str:
    """The name of the bundle's folder on a medium."""
    return f"{manifest.name}-{manifest.version}"


def generate(manifest: Manifest) -> Generated:
    """The OCI documents of a bundle, deterministic in the manifest."""
    blobs: dict[str, bytes] = {}
    refs = []
    for artifact in manifest.artifacts:
        if isinstance(artifact, Image):
            refs.append(_image_ref(artifact))
        else:
            refs.append(_ref(_document(manifest, artifact, blobs), artifact.name, blobs))
    refs.append(_ref(_evidence_manifest(manifest, blobs), EVIDENCE_REF, blobs))
    index = {"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": refs}
    return Generated(canonical.encode(index), blobs)


def _document(manifest: Manifest, artifact: Artifact, blobs: dict[str, bytes]) -> dict[str, Any]:
    if isinstance(artifact, Model | Adapter):
        return _model_manifest(manifest, artifact, blobs)
    kind, media_type = _PLAIN[type(artifact)]
    return _artifact(kind, [_titled(media_type, str(f.path), f) for f in artifact.files], blobs)


def _image_ref(image: Image) -> dict[str, Any]:
    """An image has a manifest of its own, whose raw bytes are one of its files."""
    own = next(f for f in image.files if f.sha256 == image.digest)
    out = _descriptor(image.media_type, image.digest, own.size)
    os, architecture, *variant = image.platform.split("/")
    out["platform"] = {"os": os, "architecture": architecture}
    if variant:
        out["platform"]["variant"] = variant[0]
    out["annotations"] = {"org.opencontainers.image.ref.name": image.name}
    return out


def _ref(document: dict[str, Any], name: str, blobs: dict[str, bytes]) -> dict[str, Any]:
    out = _put(_MANIFEST_TYPE, canonical.encode(document), blobs)
    out["artifactType"] = document["artifactType"]
    out["annotations"] = {"org.opencontainers.image.ref.name": name}
    return out


def _put(media_type: str, data: bytes, blobs: dict[str, bytes]) -> dict[str, Any]:
    sha256 = hashlib.sha256(data).hexdigest()
    blobs[sha256] = data
    return _descriptor(media_type, sha256, len(data))


def _descriptor(media_type: str, sha256: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size}


def _model_manifest(
    manifest: Manifest, model: Model | Adapter, blobs: dict[str, bytes]
) -> dict[str, Any]:
    config = {
        "descriptor": {
            "createdAt": rfc3339(manifest.created),
            "name": model.name,
            "version": manifest.version,
            "revision": model.revision,
            "sourceURL": model.source,
            "licenses": [model.licence] if model.licence else [],
        },
        "config": {"format": model.format if isinstance(model, Model) else "safetensors"},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{f.sha256}" for f in model.files]},
    }
    layers = []
    for f in model.files:
        layer = _descriptor(_model_layer_type(f.path), f.sha256, f.size)
        layer["annotations"] = {"org.cncf.model.filepath": str(f.path)}
        layers.append(layer)
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "artifactType": f"{_MODEL}.manifest.v1+json",
        "config": _put(f"{_MODEL}.config.v1+json", canonical.encode(config), blobs),
        "layers": layers,
    }


def _model_layer_type(path: PurePosixPath) -> str:
    suffix = path.suffix.lower()
    if suffix in _WEIGHTS:
        return f"{_MODEL}.weight.v1.raw"
    if suffix in _DOCS or path.name.upper().startswith(("LICENSE", "NOTICE")):
        return f"{_MODEL}.doc.v1.raw"
    return f"{_MODEL}.weight.config.v1.raw"


def _evidence_manifest(manifest: Manifest, blobs: dict[str, bytes]) -> dict[str, Any]:
    layers = []
    for e in manifest.evidence:
        media_type = _EVIDENCE_TYPES.get(e.kind, f"application/vnd.sealift.{e.kind}.v1+json")
        layer = _descriptor(media_type, e.sha256, e.size)
        layer["annotations"] = {"org.opencontainers.image.title": f"{e.kind}.json"}
        layers.append(layer)
    return _artifact("application/vnd.sealift.evidence.v1+json", layers, blobs)


def _artifact(kind: str, layers: list[dict[str, Any]], blobs: dict[str, bytes]) -> dict[str, Any]:
    """An OCI artifact without a config of its own (image-spec 1.1, "empty descriptor")."""
    empty = _put(_EMPTY_TYPE, _EMPTY, blobs)
    return {
        "schemaVersion": 2,
        "mediaType": _MANIFEST_TYPE,
        "artifactType": kind,
        "config": empty,
        "layers": layers or [empty],
    }


def _titled(media_type: str, title: str, f: FileEntry) -> dict[str, Any]:
    out = _descriptor(media_type, f.sha256, f.size)
    out["annotations"] = {"org.opencontainers.image.title": title}
    return out


def sums(files: Mapping[str, str]) -> bytes:
    """SHA256SUMS as coreutils reads it, from path -> SHA-256; it does not name itself."""
    return "".join(f"{files[p]}  {p}\n" for p in sorted(files)).encode()


def readme(manifest: Manifest, digest: str) -> bytes:
    """README.txt: how to check this folder by hand, with tools that nobody here wrote."""
    total = sum(b.size for b in manifest.blobs())
    lines = [
        f"{manifest.name} {manifest.version} - a Sealift bundle",
        f"{len(manifest.blobs())} files, {total} bytes of payload",
        f"manifest sha256 {digest}",
        *([f"handling: {manifest.handling}"] if manifest.handling else []),
        "",
        "Install:   airgap verify .      then      airgap install .",
        "",
        "Check by hand:",
        "  sha256sum -c SHA256SUMS",
        "      every file is intact (not: who approved it)",
        f"  sha256sum trust/targets/{manifest.target_path}",
        "      must print the manifest's sha256 above, and stand in",
        "      trust/metadata/N.targets.json, which the officers signed (TUF 1.0)",
        "  skopeo inspect --raw oci:.:NAME",
        "      NAME is one of: " + ", ".join(a.name for a in manifest.artifacts),
        "",
        "REVIEW.html is what the officers read before they approved. Their statements lie in",
        "trust/metadata/statements/ (in-toto in DSSE). Every file once: blobs/sha256/.",
    ]
    return ("\n".join(lines) + "\n").encode()
