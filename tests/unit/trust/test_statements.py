"""Officers' statements: whose, about what, how often (step 6c)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from airgap.trust.statements import read_statement
from tests.unit.trust.forge import Case, refused
from tests.vectors.pieces import statement

REPORT_A, REPORT_B = b"report a", b"report b"


def made(case: Case, officer: str, **kw: Any) -> bytes:
    return statement(officer, case.files.target, **kw)


def test_two_statements_on_one_report_are_enough(case: Case) -> None:
    files = case.with_statements(made(case, "alice"), made(case, "carol"))
    verdicts = files.decide().approved().verdicts
    assert (sorted(verdicts.passed), verdicts.threshold) == (["alice", "carol"], 2)


def test_a_refusal_beside_enough_approvals_is_shown(case: Case) -> None:
    three = (made(case, "alice"), made(case, "bob"), made(case, "carol", result="FAILED"))
    verdicts = case.with_statements(*three).decide().approved().verdicts
    assert sorted(verdicts.failed) == ["carol"]


def test_one_statement_is_too_few_and_says_whose(case: Case) -> None:
    error = refused(case.with_statements(made(case, "alice")).decide(), "trust.approvals")
    assert "alice only" in error.why and "1 of the 2" in error.what


def test_list_signed_by_two_without_any_statement_is_refused(case: Case) -> None:
    refused(case.with_statements().decide(), "trust.approvals")


def test_same_statement_twice_does_not_count_twice(case: Case) -> None:
    one = made(case, "alice")
    refused(case.with_statements(one, one).decide(), "trust.statement")


def test_both_verdicts_of_one_officer_are_refused(case: Case) -> None:
    both = (made(case, "alice"), made(case, "alice", result="FAILED"), made(case, "bob"))
    refused(case.with_statements(*both).decide(), "trust.statement")


def test_statement_replayed_from_another_manifest_does_not_count(case: Case) -> None:
    other = case.files.target.replace(b'"version":"1.0"', b'"version":"1.1"')
    replayed = statement("bob", other)
    refused(case.with_statements(made(case, "alice"), replayed).decide(), "trust.approvals")


def test_statement_signed_by_anothers_key_is_refused(case: Case) -> None:
    forged = made(case, "bob", by="alice")
    refused(case.with_statements(made(case, "alice"), forged).decide(), "trust.statement")


def test_statement_by_a_stranger_or_the_builder_does_not_count(case: Case) -> None:
    for who in ("mallory", "builder"):
        files = case.with_statements(made(case, "alice"), made(case, who))
        refused(files.decide(), "trust.approvals")


def test_officer_of_root_only_does_not_approve(case: Case) -> None:
    """Statements count by the keys of `targets`, not by any key of the root."""
    root = case.root
    root.version += 1
    carol = case.lab.signer("carol").public_key.keyid
    root.roles["targets"].keyids.remove(carol)
    files = case.root_file(root, "alice", "bob").with_statements(
        made(case, "alice"), made(case, "carol")
    )
    refused(files.decide(), "trust.approvals")


def test_officers_who_read_two_reports_are_refused(case: Case) -> None:
    two = (made(case, "alice", report=REPORT_A), made(case, "bob", report=REPORT_B))
    refused(case.with_statements(*two).decide(), "trust.statement")


def test_report_of_a_refusal_does_not_have_to_agree(case: Case) -> None:
    three = (
        made(case, "alice"),
        made(case, "bob"),
        made(case, "carol", result="FAILED", report=REPORT_B),
    )
    case.with_statements(*three).decide().approved()


def changed(data: bytes, **fields: Any) -> bytes:
    plain = json.loads(data) | fields
    return json.dumps(plain, separators=(",", ":"), sort_keys=True).encode() + b"\n"


def test_payload_changed_under_a_signature_is_refused(case: Case) -> None:
    data = made(case, "bob", result="FAILED")
    payload = base64.b64decode(json.loads(data)["payload"]).replace(b"FAILED", b"PASSED")
    forged = changed(data, payload=base64.b64encode(payload).decode())
    refused(case.with_statements(made(case, "alice"), forged).decide(), "trust.statement")


@pytest.mark.parametrize(
    "fields",
    [
        {"payloadType": "text/plain"},
        {"payload": "!!"},
        {"payload": "e30=="},
        {"signatures": []},
        {"more": 1},
        {"signatures": [{"keyid": "0" * 64, "sig": "AA=="}] * 2},
    ],
)
def test_envelope_of_another_form_is_refused(case: Case, fields: dict[str, Any]) -> None:
    bad = changed(made(case, "bob"), **fields)
    refused(case.with_statements(made(case, "alice"), bad).decide(), "trust.statement")


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"\xff", b'{"a":' * 40, b"0" * 70_000])
def test_file_that_is_no_envelope_is_refused(case: Case, data: bytes) -> None:
    refused(case.with_statements(made(case, "alice"), data).decide(), "trust.statement")


def test_metadata_signature_is_no_statement_and_the_other_way_round(case: Case) -> None:
    """One key signs both kinds: their signed bytes can never be the same."""
    keys = {k.public_key.keyid: k.public_key for k in case.signers("alice")}
    data = json.loads(case.files.metadata["2.targets.json"])
    sig = bytes.fromhex(data["signatures"][0]["sig"])
    own = json.loads(made(case, "alice"))
    forged = changed(
        made(case, "alice"),
        signatures=[
            {"keyid": own["signatures"][0]["keyid"], "sig": base64.b64encode(sig).decode()}
        ],
    )
    refused(case.with_statements(forged).decide(), "trust.statement")
    found = read_statement(made(case, "alice"), keys)
    assert found is not None and found[0] == "alice"
