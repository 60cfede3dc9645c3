"""Tokenizers: files that agree pass, a remapped or overlong vocabulary is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bundler.scan.interface import ScanResult
from bundler.scan.tokenizer import TokenizerScanner
from tests.unit.scan.makers import ids, look, severity

VOCAB = {"yes": 0, "no": 1, "<s>": 2, "</s>": 3}
SPECIAL = [
    {"id": 2, "content": "<s>", "special": True},
    {"id": 3, "content": "</s>", "special": True},
    {"id": 4, "content": "<|end|>", "special": True},
]
SOUND: dict[str, Any] = {
    "tokenizer.json": {"model": {"type": "BPE", "vocab": VOCAB}, "added_tokens": SPECIAL},
    "vocab.json": VOCAB,
    "added_tokens.json": {"<|end|>": 4},
    "tokenizer_config.json": {
        "added_tokens_decoder": {str(t["id"]): {**t} for t in SPECIAL},
        "bos_token": "<s>",
        "eos_token": {"content": "<|end|>"},
    },
    "special_tokens_map.json": {"bos_token": "<s>", "eos_token": "<|end|>"},
    "config.json": {"vocab_size": 8, "eos_token_id": 3},
    "generation_config.json": {"bos_token_id": 2, "eos_token_id": [3, 4]},
}


def judged(folder: Path, changes: dict[str, Any]) -> ScanResult:
    """What is said of the sound tokenizer with some files changed."""
    files = {k: json.dumps(v).encode() for k, v in {**SOUND, **changes}.items()}
    return look(TokenizerScanner(), folder, files)


def test_files_that_agree_are_covered_without_findings(tmp_path: Path) -> None:
    result = judged(tmp_path, {})
    assert result.findings == [] and len(result.covered) == len(SOUND)


SWAPPED = {"yes": 1, "no": 0, "<s>": 2, "</s>": 3}
HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("tokenizer.remap", {"vocab.json": SWAPPED}),
    ("tokenizer.remap", {"added_tokens.json": {"no": 0}}),
    (
        "tokenizer.remap",
        {"tokenizer_config.json": {"added_tokens_decoder": {"0": {"content": "</s>"}}}},
    ),
    (
        "tokenizer.remap",
        {
            "tokenizer.json": {
                "model": {"vocab": VOCAB},
                "added_tokens": [{"id": 0, "content": "no", "special": True}],
            }
        },
    ),
    ("tokenizer.not-bijective", {"tokenizer.json": {"model": {"vocab": {"yes": 0, "no": 0}}}}),
    ("tokenizer.not-bijective", {"vocab.json": {**VOCAB, "ja": 0}}),
    ("tokenizer.not-bijective", {"tokenizer.json": {"model": {"vocab": [["a", 0], ["a", 1]]}}}),
    (
        "tokenizer.not-bijective",
        {"tokenizer_config.json": {"added_tokens_decoder": {"1": {"content": "<other>"}}}},
    ),
    ("tokenizer.malformed", {"tokenizer.json": {"model": {"vocab": {"yes": "0"}}}}),
    ("tokenizer.malformed", {"tokenizer.json": {"model": {"vocab": {"yes": -1}}}}),
    ("tokenizer.malformed", {"added_tokens.json": {"<|end|>": "4"}}),
    ("tokenizer.malformed", {"tokenizer_config.json": {"added_tokens_decoder": {"x": {}}}}),
    (
        "tokenizer.id-range",
        {
            "config.json": {"vocab_size": 2},
            "tokenizer.json": {"model": {"vocab": {**VOCAB, "word": 4}}},
            "added_tokens.json": {},
            "tokenizer_config.json": {},
        },
    ),
    ("tokenizer.special-disagrees", {"special_tokens_map.json": {"eos_token": "yes"}}),
    ("tokenizer.special-disagrees", {"generation_config.json": {"eos_token_id": [3, 0]}}),
]


@pytest.mark.parametrize(("id", "changes"), HOSTILE)
def test_tokenizer_that_says_other_things_is_refused(
    tmp_path: Path, id: str, changes: dict[str, Any]
) -> None:
    result = judged(tmp_path, changes)
    assert "medium" in {f.severity for f in result.findings if f.id == id}, ids(result)


TOLD: list[tuple[str, dict[str, Any]]] = [
    # A class's defaults left in the model's configuration.
    ("tokenizer.special-disagrees", {"config.json": {"vocab_size": 8, "eos_token_id": 1}}),
    ("tokenizer.special-disagrees", {"generation_config.json": {"pad_token_id": 0}}),
    ("tokenizer.special-disagrees", {"special_tokens_map.json": {"eos_token": "</s>"}}),
    ("tokenizer.special-disagrees", {"special_tokens_map.json": {"pad_token": "<pad>"}}),
    # Gemma 3 has a token for images that its text model has no row for.
    ("tokenizer.id-range", {"config.json": {"vocab_size": 4}}),
]


@pytest.mark.parametrize(("id", "changes"), TOLD)
def test_what_published_models_do_is_told_and_does_not_refuse(
    tmp_path: Path, id: str, changes: dict[str, Any]
) -> None:
    result = judged(tmp_path, changes)
    assert severity(result, id) == "low"
    assert ids(result) == {id}


def test_range_of_a_model_within_a_model_is_asked(tmp_path: Path) -> None:
    config = {"vocab_size": 99, "text_config": {"vocab_size": 1}}
    assert severity(judged(tmp_path, {"config.json": config}), "tokenizer.id-range") == "medium"


def piece(text: bytes) -> bytes:
    """A field 1 of a SentencePiece model: a piece with its text and a score."""
    body = b"\x0a" + bytes([len(text)]) + text + b"\x15\x00\x00\x00\x00"
    return b"\x0a" + bytes([len(body)]) + body


SENTENCEPIECE = piece(b"<unk>") + piece(b"<s>") + piece(b"</s>")


def test_sound_sentencepiece_model_is_covered(tmp_path: Path) -> None:
    result = look(TokenizerScanner(), tmp_path, {"tokenizer.model": SENTENCEPIECE})
    assert result.findings == [] and len(result.covered) == 1


@pytest.mark.parametrize(
    ("id", "data"),
    [
        ("tokenizer.not-bijective", SENTENCEPIECE + piece(b"<s>")),
        ("tokenizer.malformed", SENTENCEPIECE + b"\x4a\x01x"),
        ("tokenizer.malformed", SENTENCEPIECE + b"\x0a\x7fx"),
        ("tokenizer.malformed", SENTENCEPIECE + b"\xff" * 12),
        ("tokenizer.malformed", SENTENCEPIECE + piece(b"\xff\xfe")),
    ],
)
def test_spoilt_sentencepiece_model_is_refused(tmp_path: Path, id: str, data: bytes) -> None:
    result = look(TokenizerScanner(), tmp_path, {"tokenizer.model": data})
    assert severity(result, id) == "high"
    assert result.covered == set() and len(result.unscanned) == 1
