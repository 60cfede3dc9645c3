"""The installer's guide names every error of the isolated side, with a way out, and no other."""

from __future__ import annotations

from tests import error_ids


def test_every_id_is_in_the_guide_with_a_way_out() -> None:
    have = error_ids.documented()
    missing = sorted({f.id for f in error_ids.found()} - set(have))
    assert missing == [], "python -m tests.error_ids prints rows to add"
    assert [i for i, way in have.items() if len(way) < 10] == []


def test_no_id_in_the_guide_is_of_the_past() -> None:
    assert sorted(set(error_ids.documented()) - {f.id for f in error_ids.found()}) == []


def test_the_sources_were_read() -> None:
    ids = {f.id for f in error_ids.found()}
    assert len(ids) > 100
    assert {"trust.revoked", "host.not-fit", "disk.full", "serving.check-failed"} <= ids
