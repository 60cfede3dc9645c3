"""Text and names: secrets, hidden characters, code, what loaders unpickle by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundler.scan import bounds
from bundler.scan.content import ContentScanner
from bundler.scan.text import TextScanner
from tests.unit.scan.makers import gguf, ids, look, severity, sound_safetensors

# Put together here, so that no file of ours holds what looks like a secret.
SECRETS = [
    "AKIA" + "A2B3" * 4,
    "ghp_" + "a1" * 18,
    "hf_" + "aB" * 17,
    "xoxb-" + "12345678901-" + "a" * 24,
    "glpat-" + "a1" * 10,
    "AIza" + "a" * 35,
    "-----BEGIN " + "PRIVATE KEY-----\n" + "MIIE" * 12,
    "-----BEGIN OPENSSH " + "PRIVATE KEY-----\\n" + "b3Bl" * 12,
]


def test_ordinary_texts_are_covered_without_findings(tmp_path: Path) -> None:
    files = {
        "README.md": "---\nlicense: mit\n---\n# Ein Modell für alle 🏴󠁧󠁢󠁥󠁮󠁧󠁿 👩‍👩‍👧\n".encode(),
        "LICENSE": b"Copyright\n\x0cEND\n",
        "chat_template.jinja": b"{% for m in messages %}{{ m.content }}{% endfor %}\n",
        "merges.txt": "#version: 0.2\nĠ t\n\u200b x\n".encode(),
        ".gitattributes": b"*.safetensors filter=lfs\r\n",
    }
    result = look(TextScanner(), tmp_path, files)
    assert not result.findings and not result.unscanned
    assert len(result.covered) == len(files)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", ["README.md", "tokenizer_config.json"])
def test_secret_is_found_and_never_repeated(tmp_path: Path, secret: str, name: str) -> None:
    text = f'{{"a":\n "{secret}"}}' if name.endswith("json") else f"key:\n{secret}\n"
    result = look(TextScanner(), tmp_path, {name: text.encode()})
    assert severity(result, "text.secret") == "high"
    assert secret not in result.findings[0].message
    assert "line 2" in result.findings[0].message


def test_secret_at_the_end_of_a_long_file_is_found(tmp_path: Path) -> None:
    data = b"word " * 200_000 + SECRETS[0].encode()
    assert ids(look(TextScanner(), tmp_path, {"notes.txt": data})) == {"text.secret"}


@pytest.mark.parametrize(
    "character", ["\u202e", "\u2066", "\u200b", "\u00ad", "\x1b", "\U000e0041"]
)
def test_unseen_character_in_a_chat_template_is_refused(tmp_path: Path, character: str) -> None:
    data = f"{{{{ a{character}b }}}}".encode()
    result = look(TextScanner(), tmp_path, {"additional_chat_templates/x.jinja": data})
    assert {f.severity for f in result.findings} == {"high"}


def test_text_that_turns_the_reading_direction_is_refused(tmp_path: Path) -> None:
    result = look(TextScanner(), tmp_path, {"LICENSE": "free \u202eton\u202c".encode()})
    assert severity(result, "text.bidirectional") == "high"


@pytest.mark.parametrize("middle", [b"\x00", b"\xff", b"\xed\xa0\x80"])
def test_text_that_is_none_in_its_middle_is_not_covered(tmp_path: Path, middle: bytes) -> None:
    data = b"word " * 40_000 + middle + b"word " * 40_000
    result = look(TextScanner(), tmp_path, {"notes.txt": data})
    assert not result.covered and result.unscanned


def test_text_over_the_bound_is_not_covered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "MAX_TEXT_BYTES", 100)
    result = look(TextScanner(), tmp_path, {"notes.txt": b"a" * 101})
    assert not result.covered and result.unscanned


@pytest.mark.parametrize(
    ("name", "data", "id"),
    [
        ("modeling.py", b"x = 1\n", "code.file"),
        ("a/b.PY", b"x = 1\n", "code.file"),
        ("x.pyc", b"\xcb\r\r\n" + b"\x00" * 12, "code.executable"),
        ("weights.txt", b"\xcb\r\r\n" + b"\x00" * 12, "code.executable"),
        ("lib.so", b"\x7fELF" + b"\x00" * 60, "code.executable"),
        ("README.md", b"\x7fELF" + b"\x00" * 60, "code.executable"),
        ("lib.so.1", b"text", "code.file"),
        ("x.pth", b"import os\n", "code.file"),
        ("run.sh", b"id\n", "code.file"),
        ("run", b"#!/bin/sh\nid\n", "code.executable"),
        ("custom_generate/generate.txt", b"x\n", "code.custom-generate"),
        ("m.bin", sound_safetensors("a"), "pickle.name"),
        ("m.PT", gguf(), "pickle.name"),
        ("m.joblib", b"text", "pickle.name"),
        ("m.gguf", b"version https://git-lfs.github.com/spec/v1\n", "content.lfs-pointer"),
    ],
)
def test_code_and_names_that_load_code_are_refused(
    tmp_path: Path, name: str, data: bytes, id: str
) -> None:
    assert severity(look(ContentScanner(), tmp_path, {name: data}), id) == "high"


def test_ordinary_names_and_contents_pass(tmp_path: Path) -> None:
    files = {
        "model.safetensors": sound_safetensors("a"),
        "m.gguf": gguf(),
        "config.json": b"{}",
        "README.md": b"text",
        "tokenizer.model.txt": b"x",
    }
    assert not look(ContentScanner(), tmp_path, files).findings
