"""Content decides what a file is; its name has no say."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import tarfile
import zlib
from pathlib import Path

import pytest

from bundler.scan.sniff import PICKLE_CAPABLE, sniff
from tests.unit.scan.makers import gguf, make_zip, sound_safetensors


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("called",)


def npy(dtype: str) -> bytes:
    numpy = pytest.importorskip("numpy")
    out = io.BytesIO()
    values = {"O": [None], "u8": [1]}[dtype]
    numpy.save(out, numpy.array(values, dtype=dtype), allow_pickle=True)
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("data.pkl"), io.BytesIO())
    return out.getvalue()


# torch.save before 1.6: five pickles one after the other, then raw storages.
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
LEGACY = b"".join(pickle.dumps(x, 2) for x in (MAGIC_NUMBER, 1001, {}, Evil(), [])) + b"\x00" * 64
ZIP = make_zip({"archive/data.pkl": pickle.dumps(Evil())})
EVIL = pickle.dumps(Evil())


def is_kind(tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "file"
    file.write_bytes(data)
    return sniff(file)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [Evil(), {"a": [1, 2.5, "x"]}, ["a" * 100] * 50])
def test_pickle_of_every_protocol_is_told(tmp_path: Path, protocol: int, value: object) -> None:
    assert is_kind(tmp_path, pickle.dumps(value, protocol)) == "pickle"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (LEGACY, "pickle"),
        (EVIL + b"and more", "pickle"),
        (b"cposix\nsystem\n(S'id'\ntR.", "pickle"),
        (b"(S'id'\niposix\nsystem\n.", "pickle"),
        (b"\x80\x02", "pickle"),
        (b"L119547037146038801333356L\n.I1001\n.(d.cposix\nsystem\n(S'id'\ntR.", "pickle"),
        (ZIP, "zip"),
        (b"\xff\xfe" * 100 + ZIP, "zip"),
        (sound_safetensors("a") + ZIP, "zip"),
        (gguf() + ZIP, "zip"),
        (ZIP + b"\x00", "zip"),
        (gzip.compress(EVIL), "gzip"),
        (zlib.compress(EVIL), "zlib"),
        (zlib.compress(EVIL, 0), "zlib"),
        (bz2.compress(EVIL), "bzip2"),
        (lzma.compress(EVIL), "xz"),
        (tar(), "tar"),
        (b"7z\xbc\xaf\x27\x1c" + b"\x00" * 30, "7z"),
        (npy("O"), "npy-object"),
        (npy("u8"), "npy"),
        (b"\x93NUMPY\x01\x00\xff\xff{broken", "npy-object"),
        (b"\x7fELF\x02\x01\x01" + b"\x00" * 60, "elf"),
        (b"#!/bin/sh\nid\n", "script"),
        (sound_safetensors("a"), "safetensors"),
        (gguf(), "gguf"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "lfs-pointer"),
        (b'{"a": 1}', "json"),
        (b"[1, 2]\n", "json"),
        (b"# A model\n\nIt answers.\n", "text"),
        ("Füße, 模型\n".encode(), "text"),
        (b"{{ messages }}\n{% for m in messages %}", "text"),
        (b"MZ is how this text begins", "text"),
        (b"a\x00b", "unknown"),
        (b"\xff\xfe\xfd" * 10, "unknown"),
        (b"", "empty"),
    ],
)
def test_content_is_told(tmp_path: Path, data: bytes, kind: str) -> None:
    assert is_kind(tmp_path, data) == kind


def test_containers_that_loaders_unpickle_are_known_as_such() -> None:
    kinds = {"pickle", "npy-object", "zip", "tar", "gzip", "zlib", "bzip2", "xz", "7z"}
    assert kinds <= PICKLE_CAPABLE


def test_zip_with_the_longest_comment_is_told(tmp_path: Path) -> None:
    data = ZIP[:-2] + (65535).to_bytes(2, "little") + b"\xfe" * 65535
    assert is_kind(tmp_path, b"\xff\xfe" * 100 + data) == "zip"


def test_zip_with_bytes_behind_it_is_told(tmp_path: Path) -> None:
    assert is_kind(tmp_path, b"\xff\xfe" * 100 + ZIP + b"\xfe" * 100) == "zip"


def test_text_pickle_with_a_long_first_line_is_told(tmp_path: Path) -> None:
    data = b"S'" + b"a" * 200_000 + b"'\n0cposix\nsystem\n(S'id'\ntR."
    assert is_kind(tmp_path, data) == "pickle"


def test_binary_pickle_with_a_long_first_value_is_told(tmp_path: Path) -> None:
    value = b"X" + (200_000).to_bytes(4, "little") + b"a" * 200_000
    assert is_kind(tmp_path, value + b"0cposix\nsystem\n(S'id'\ntR.") == "pickle"


def test_vocabulary_and_licence_texts_are_no_pickle(tmp_path: Path) -> None:
    vocabulary = json.dumps({f"tok{i}": i for i in range(20_000)}).encode()
    assert is_kind(tmp_path, vocabulary) == "json"
    merges = b"#version: 0.2\n" + b"".join(b"%d %d\n" % (i, i + 1) for i in range(20_000))
    assert is_kind(tmp_path, merges) == "text"
    for first in b"()}]NIJKLMSTUVXGFBCcdeghilopqrstu012.":
        body = bytes([first]) + b" licensed under these terms, line by line.\n" * 4000
        assert is_kind(tmp_path, body) == "text"
