"""Vectors of steps 7 to 11: policy, names and sizes, bytes, evidence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from airgap.format.artifacts import Adapter, Image, PlainFiles, Wheels
from airgap.format.evidence import Finding
from tests.vectors.model import Vector, changed
from tests.vectors.pieces import (
    CONFIG,
    WEIGHTS,
    Content,
    Hole,
    Item,
    Link,
    Medium,
    content,
    coverage,
    file,
    findings,
    medium,
    model,
)

BASE = medium()
_BLOB = f"blobs/sha256/{hashlib.sha256(WEIGHTS).hexdigest()}"
_SMALL = f"blobs/sha256/{hashlib.sha256(CONFIG).hexdigest()}"
_OCI = "application/vnd.oci.image"


def every_kind() -> Content:
    """One artifact of each kind, and the bytes of all their files."""
    weights = {"config.json": CONFIG, "model.gguf": WEIGHTS}
    lora = {"adapter_config.json": b"{}\n", "adapter_model.safetensors": b"lora"}
    wheel, vocabulary = b"PK wheel", b"vocabulary"
    layer, config = b"a layer", b'{"architecture":"amd64","os":"linux"}'
    image = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", config),
            "layers": [_descriptor(f"{_OCI}.layer.v1.tar", layer)],
        },
        indent=3,  # the raw bytes of its publisher, whatever they look like
    ).encode()
    parts = {"config.json": config, "layers/000": layer, "manifest.json": image}
    artifacts = (
        Adapter(
            name="adapter",
            source="vectors",
            revision="1",
            base="model",
            rank=8,
            publisher="",
            licence="mit",
            files=tuple(file(p, d) for p, d in lora.items()),
        ),
        PlainFiles(name="files", files=(file("o200k_base.tiktoken", vocabulary),)),
        Image(
            name="image",
            reference="registry.example/engine:1",
            platform="linux/amd64",
            digest=hashlib.sha256(image).hexdigest(),
            media_type=f"{_OCI}.manifest.v1+json",
            files=tuple(file(p, d) for p, d in parts.items()),
        ),
        model(weights),
        Wheels(
            name="wheels",
            requirements=("engine==1.0",),
            files=(file("engine-1.0-py3-none-any.whl", wheel),),
        ),
    )
    blobs = (*weights.values(), *lora.values(), *parts.values(), wheel, vocabulary)
    return content(artifacts, blobs)


def _descriptor(media_type: str, data: bytes) -> dict[str, object]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"mediaType": media_type, "digest": digest, "size": len(data)}


def of(made: Content, **manifest: object) -> Medium:
    """An approved bundle of other content."""
    return replace(BASE, content=made).with_manifest(made.manifest(**manifest))


def accepted() -> Iterator[Vector]:
    yield Vector(
        "accept-every-kind",
        "none: a model, an adapter, wheels, an image and plain files",
        medium=of(every_kind()),
    )


def policies() -> Iterator[Vector]:
    """Steps 7 and 10."""
    yield Vector(
        "policy-audience",
        "approved for another site",
        *("7", 5, "policy.audience"),
        medium=of(content(), audience=("north",)),
    )
    bad = Finding(
        id="config.auto-map",
        severity="high",
        scanner="config",
        artifact="model",
        path=PurePosixPath("config.json"),
        sha256=hashlib.sha256(CONFIG).hexdigest(),
        message="loads code",
    )
    yield Vector(
        "policy-finding",
        "officers approved in spite of a finding that this host's policy refuses",
        *("10", 5, "policy.finding"),
        medium=of(content(findings=findings(bad))),
    )
    lacking = coverage(content().artifacts, "model.gguf")
    yield Vector(
        "policy-not-scanned",
        "no scanner read one of the files",
        *("10", 5, "policy.not-scanned"),
        medium=of(content(coverage=lacking)),
    )


def shapes() -> Iterator[Vector]:
    """Step 8."""
    for name, attack, error, change in (
        ("extra", "a file that the manifest does not name", "bundle.extra", {"run.sh": b"#!"}),
        (
            "case-collision",
            "a second README that one file system shows and another hides",
            "bundle.extra",
            {"readme.txt": b"x"},
        ),
        ("missing", "a blob was not copied", "bundle.missing", {_SMALL: None}),
        ("cut-off", "a blob was cut off", "integrity.size", {_BLOB: WEIGHTS[:-1]}),
        ("hole", "a sparse terabyte", "integrity.size", {_BLOB: Hole(1 << 40)}),
        (
            "link",
            "a blob is a link to another place",
            "integrity.not-a-file",
            {_BLOB: Link("../../README.txt")},
        ),
    ):
        files: dict[str, Item | None] = dict(change)
        yield Vector(f"shape-{name}", attack, *("8", 3, error), tree=changed(BASE, **files))
    tree = {p.replace("blobs/", "elsewhere/"): d for p, d in BASE.tree().items()}
    yield Vector(
        "shape-linked-folder",
        "the blobs' folder is a link to another one",
        *("8", 3, "integrity.not-a-file"),
        tree={**tree, "blobs": Link("elsewhere")},
    )


def contents() -> Iterator[Vector]:
    """Steps 10 and 11."""
    flipped = bytes([WEIGHTS[0] ^ 1]) + WEIGHTS[1:]
    report = BASE.report.replace(b"officers", b"OFFICERS")
    readme = BASE.tree()["README.txt"]
    assert isinstance(readme, bytes)
    instructions = readme.replace(b"verify", b"ignore")
    for name, step, attack, change in (
        ("report", "10", "another report of the same length", {"REVIEW.html": report}),
        ("readme", "10", "instructions changed", {"README.txt": instructions}),
        ("flipped-bit", "11", "one bit of the weights flipped", {_BLOB: flipped}),
    ):
        tree = changed(BASE, **change)
        yield Vector(f"bytes-{name}", attack, *(step, 3, "integrity.digest"), tree=_resummed(tree))


def _resummed(tree: dict[str, Item]) -> dict[str, Item]:
    """SHA256SUMS made to fit, as an attacker would."""
    lines = []
    for path in sorted(p for p in tree if p != "SHA256SUMS"):
        data = tree[path]
        assert isinstance(data, bytes)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {path}\n")
    return {**tree, "SHA256SUMS": "".join(lines).encode()}


def all_of_them() -> list[Vector]:
    """In the order of the steps."""
    return [v for group in (accepted, policies, shapes, contents) for v in group()]
