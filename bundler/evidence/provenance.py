"""Provenance: an in-toto Statement v1 with SLSA provenance v1, without clock values.

Subject: every file of the bundle. It is not signed by itself: the officers approve its digest.
https://slsa.dev/spec/v1.0/provenance
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from airgap.format import canonical
from airgap.format.artifacts import LockedArtifact, LockedFile
from airgap.format.lock import Lock
from airgap.format.statement import STATEMENT_TYPE

PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:sealift:build:1"
BUILDER_ID = "urn:sealift:builder"


def make_provenance(lock: Lock, tools: Mapping[str, str]) -> bytes:
    """The provenance of what `lock` names, as canonical JSON.

    `tools`: versions of what resolved and fetched, by name (`{"uv": "0.13.9"}`).
    """
    digest = hashlib.sha256(lock.to_bytes()).hexdigest()
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [_subject(a, f) for a in lock.artifacts for f in a.files],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": _asked_for(lock),
                "internalParameters": {},
                "resolvedDependencies": [
                    {"name": "lock", "digest": {"sha256": digest}},
                    *(_dependency(a, f) for a in lock.artifacts for f in a.files),
                ],
            },
            "runDetails": {"builder": {"id": BUILDER_ID, "version": dict(tools)}},
        },
    }
    return canonical.encode(statement)


def _asked_for(lock: Lock) -> dict[str, Any]:
    return {
        "name": lock.name,
        "version": lock.version,
        "request": {"digest": {"sha256": lock.request}},
        "target": lock.target.to_json(),
    }


def _subject(artifact: LockedArtifact, file: LockedFile) -> dict[str, Any]:
    return {"name": f"{artifact.name}/{file.path}", "digest": {"sha256": file.sha256}}


def _dependency(artifact: LockedArtifact, file: LockedFile) -> dict[str, Any]:
    """Where the bytes came from: a URL, or the words that the lock has for a local source."""
    out: dict[str, Any] = {
        "name": f"{artifact.name}/{file.path}",
        "digest": {"sha256": file.sha256},
        "annotations": {"source": file.label},
    }
    if file.url is not None:
        out["uri"] = file.url
    return out
