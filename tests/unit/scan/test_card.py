"""Model cards: what they say of the licence and the publisher, against what the lock says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bundler.scan.card import CardScanner
from bundler.scan.content import ContentScanner
from bundler.scan.gate import scan
from bundler.scan.interface import ScanResult, Stated
from tests.unit.scan.makers import ids, look, put, severity
from tests.unit.scan.test_gate import artifact

LOCKED = Stated(source="huggingface.co/ann/tiny", publisher="ann", licence="Apache-2.0")


def judged(folder: Path, card: str | None, stated: Stated = LOCKED) -> ScanResult:
    """What is said of a model with this card and a licence file."""
    files = {"LICENSE": b"Apache\n"}
    if card is not None:
        files["README.md"] = card.encode()
    subjects = [dataclasses.replace(s, stated=stated) for s in put(folder, files)]
    return CardScanner().scan(subjects)


def card(front: str) -> str:
    return f"---\n{front}\n---\n# A model\n"


@pytest.mark.parametrize(
    "front",
    [
        "license: apache-2.0",
        "license: Apache-2.0\r",
        "license: other\nlicense_name: apache-2.0\nlicense_link: LICENSE",
    ],
)
def test_card_that_agrees_with_the_lock_has_no_findings(tmp_path: Path, front: str) -> None:
    result = judged(tmp_path, card(front))
    assert result.findings == [] and {str(p) for p in result.covered} == {"README.md"}


@pytest.mark.parametrize(
    "front", ["license: cc-by-nc-4.0", "license: other\nlicense_name: research-only"]
)
def test_licence_that_contradicts_the_lock_is_refused(tmp_path: Path, front: str) -> None:
    assert severity(judged(tmp_path, card(front)), "card.licence") == "medium"


def test_publisher_that_does_not_own_the_repository_is_refused(tmp_path: Path) -> None:
    stated = dataclasses.replace(LOCKED, publisher="meta-llama")
    result = judged(tmp_path, card("license: apache-2.0"), stated)
    assert severity(result, "card.publisher") == "medium"


@pytest.mark.parametrize(
    ("id", "text"),
    [
        ("card.missing", None),
        ("card.no-front-matter", "# A model\n"),
        ("card.no-licence", card("tags: [x]")),
        ("card.malformed", card("a: [")),
        ("card.malformed", card("- a list")),
        ("card.malformed", card("x: !!python/object/apply:os.system ['id']")),
        ("card.malformed", card("a: " + "[" * 3000)),
    ],
)
def test_card_that_says_nothing_is_told(tmp_path: Path, id: str, text: str | None) -> None:
    assert severity(judged(tmp_path, text), id) == "low"


def test_licence_of_the_card_is_told_where_the_lock_has_none(tmp_path: Path) -> None:
    result = judged(tmp_path, card("license: mit"), Stated())
    assert severity(result, "card.licence") == "low"
    assert "'mit'" in result.findings[0].message


def test_model_without_a_licence_file_is_told(tmp_path: Path) -> None:
    result = look(CardScanner(), tmp_path, {"README.md": card("license: mit").encode()})
    assert severity(result, "licence.no-file") == "low"


def test_base_model_of_the_card_is_told(tmp_path: Path) -> None:
    result = judged(tmp_path, card("license: apache-2.0\nbase_model: other/base"))
    assert severity(result, "card.base-model") == "info"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "README.md"])
def test_lfs_pointer_in_place_of_a_file_is_refused_and_covers_nothing(
    tmp_path: Path, name: str
) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 9\n"
    result = look(ContentScanner(), tmp_path / "one", {name: pointer})
    assert severity(result, "content.lfs-pointer") == "high"
    assert "content.lfs-pointer" in ids(result)
    _, coverage = scan([artifact(tmp_path, {name: pointer})])
    assert [c.verdict for c in coverage.files] == ["not-covered"]
