"""Bill of materials: CycloneDX 1.6, models as ML components, wheels as libraries.

Deterministic: no time, the serial number follows from the lock, and the bytes are canonical JSON.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from airgap.format import canonical
from airgap.format.artifact_rules import wheel_name_version
from airgap.format.artifacts import (
    LockedAdapter,
    LockedArtifact,
    LockedFile,
    LockedImage,
    LockedModel,
    LockedWheels,
)
from airgap.format.lock import Lock

if TYPE_CHECKING:
    from cyclonedx.model import ExternalReference, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License


def make_bom(lock: Lock) -> bytes:
    """The bill of materials of everything that `lock` names, as canonical JSON."""
    from cyclonedx.output.json import JsonV1Dot6

    text = JsonV1Dot6(_bom(lock)).output_as_string()
    data = json.loads(text)
    # The library stamps the time of the run; the same lock must give the same bytes.
    data["metadata"].pop("timestamp", None)
    return canonical.encode(data)


def _bom(lock: Lock) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType

    digest = hashlib.sha256(lock.to_bytes()).hexdigest()
    root = Component(
        type=ComponentType.APPLICATION,
        name=lock.name,
        version=lock.version,
        description=lock.summary or None,
        bom_ref=f"bundle:{lock.name}",
    )
    parts = [c for artifact in lock.artifacts for c in _components(artifact)]
    bom = Bom(
        components=parts,
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:sha256:{digest}"),
        metadata=BomMetaData(component=root),
    )
    bom.register_dependency(root, parts)
    return bom


def _components(artifact: LockedArtifact) -> list[Component]:
    if isinstance(artifact, LockedModel | LockedAdapter):
        return [_model(artifact)]
    if isinstance(artifact, LockedWheels):
        return [_wheel(artifact.name, f) for f in artifact.files]
    if isinstance(artifact, LockedImage):
        return [_image(artifact)]
    return [_file(f"files:{artifact.name}", f) for f in artifact.files]


def _image(image: LockedImage) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    ref = f"image:{image.name}"
    return Component(
        type=ComponentType.CONTAINER,
        name=image.reference,
        version=f"sha256:{image.digest}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=image.digest)],
        components=[_file(ref, f) for f in image.files],
        bom_ref=ref,
    )


def _model(model: LockedModel | LockedAdapter) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    ref = f"{model.kind}:{model.name}"
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=model.source,
        version=model.revision,
        publisher=model.publisher or None,
        licenses=_licences(model.licence),
        # One file is the model itself; of several, each has its own hash below.
        hashes=_hashes(model.files[0]) if len(model.files) == 1 else None,
        components=[_file(ref, f) for f in model.files],
        bom_ref=ref,
    )


def _file(parent: str, file: LockedFile) -> Component:
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        type=ComponentType.FILE,
        name=str(file.path),
        hashes=_hashes(file),
        external_references=_origin(file),
        bom_ref=f"{parent}/{quote(str(file.path))}",
    )


def _wheel(artifact: str, file: LockedFile) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL
    from packaging.utils import canonicalize_name

    name, version = wheel_name_version(file.path.name)
    purl = PackageURL(
        "pypi",
        name=canonicalize_name(name),
        version=version,
        qualifiers={"file_name": file.path.name},
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=canonicalize_name(name),
        version=version,
        purl=purl,
        hashes=_hashes(file),
        external_references=_origin(file),
        bom_ref=f"wheels:{artifact}/{file.path.name}",
    )


def _hashes(file: LockedFile) -> Sequence[HashType]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)]


def _origin(file: LockedFile) -> Sequence[ExternalReference]:
    from cyclonedx.model import ExternalReference, ExternalReferenceType, XsUri

    if file.url is None:
        return []
    return [ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(file.url))]


def _licences(licence: str) -> Sequence[License]:
    """An SPDX identifier or expression where it is one, else the words as they stand."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    if not licence:
        return []
    return [LicenseFactory().make_from_string(licence)]
