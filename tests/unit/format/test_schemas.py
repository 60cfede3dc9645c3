"""The schemas in docs/schemas/ are current, well-formed, and agree with the decoder on the ready
request and policies."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from airgap.format.policy import STRICT
from bundler import policy_compile, request
from bundler.format_schemas import all_schemas, write_all

ROOT = Path(__file__).parents[3]


def test_the_checked_in_schemas_are_current() -> None:
    checked_in = {p.name: p.read_bytes() for p in (ROOT / "docs" / "schemas").glob("*.json")}
    assert checked_in == all_schemas(), "run: python -m bundler.format_schemas"


@pytest.mark.parametrize("name", sorted(all_schemas()))
def test_a_schema_is_well_formed(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(all_schemas()[name]))


def test_what_is_written_is_what_was_made(tmp_path: Path) -> None:
    write_all(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == all_schemas()


def test_the_ready_documents_fit_their_schemas() -> None:
    schemas = all_schemas()
    manifests = ROOT / "manifests"
    for path in manifests.glob("*.toml"):
        schema = json.loads(schemas["request.schema.json"])
        jsonschema.validate(request.read(path).to_json(), schema)
    policy = json.loads(schemas["policy.schema.json"])
    for path in (manifests / "policies").glob("*.toml"):
        jsonschema.validate(policy_compile.read(path).to_json(), policy)
    jsonschema.validate(STRICT.to_json(), policy)
