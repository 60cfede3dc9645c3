"""A bundle's documents follow from its manifest, for every kind of artifact."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from airgap.format import canonical, layout
from airgap.format.manifest import Manifest
from tests.vectors.cases_payload import every_kind, of

MEDIUM = of(every_kind())
MANIFEST = Manifest.from_bytes(MEDIUM.manifest)
MADE = layout.generate(MANIFEST)
INDEX = json.loads(MADE.index)


def descriptors() -> dict[str, dict[str, Any]]:
    name = "org.opencontainers.image.ref.name"
    return {d["annotations"][name]: d for d in INDEX["manifests"]}


def bytes_of(sha256: str) -> bytes:
    found = {**MADE.blobs, **MEDIUM.content.by_digest()}
    return found[sha256]


def test_making_it_again_gives_the_same_bytes() -> None:
    again = layout.generate(Manifest.from_bytes(MEDIUM.manifest))
    assert (again.index, again.blobs) == (MADE.index, MADE.blobs)
    assert canonical.encode(INDEX) == MADE.index


def test_every_artifact_stands_in_the_index_once_and_the_evidence_last() -> None:
    assert list(descriptors()) == [*(a.name for a in MANIFEST.artifacts), layout.EVIDENCE_REF]


def test_every_digest_and_size_that_is_named_is_that_of_bytes_in_the_bundle() -> None:
    named = list(INDEX["manifests"])
    for descriptor in INDEX["manifests"]:
        document = json.loads(bytes_of(descriptor["digest"].removeprefix("sha256:")))
        named += [document["config"], *document["layers"]]
    for descriptor in named:
        data = bytes_of(descriptor["digest"].removeprefix("sha256:"))
        assert descriptor["size"] == len(data)
        assert descriptor["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_an_image_keeps_the_raw_manifest_and_digest_of_its_registry() -> None:
    found = descriptors()["image"]
    raw = bytes_of(found["digest"].removeprefix("sha256:"))
    assert b"\n   " in raw  # as its publisher wrote it, not in our form
    assert found["platform"] == {"os": "linux", "architecture": "amd64"}


def test_every_file_of_every_artifact_is_a_blob_and_nothing_else_is() -> None:
    files = {f.sha256 for a in MANIFEST.artifacts for f in a.files}
    evidence = {e.sha256 for e in MANIFEST.evidence}
    tree = {p.rpartition("/")[2] for p in MEDIUM.tree() if p.startswith("blobs/sha256/")}
    assert tree == files | evidence | set(MADE.blobs)


def test_coreutils_check_the_sums(tmp_path: Path) -> None:
    for path, data in MEDIUM.tree().items():
        assert isinstance(data, bytes)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    check = ["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path, check=True)
    named = {line[66:] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert named == set(MEDIUM.tree()) - {"SHA256SUMS"}
    (tmp_path / "REVIEW.html").write_bytes(b"other")
    assert subprocess.run(check, cwd=tmp_path, check=False, capture_output=True).returncode == 1
