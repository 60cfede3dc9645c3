"""The pieces of a SentencePiece `tokenizer.model`: protocol buffers, read by a bounded parser.

The schema is google/sentencepiece's `ModelProto`: field 1 a piece (its text in field 1), 2 to 5 the
trainer's, the normalizer's, the self test's and the denormalizer's settings. A message that passes
has no field but those, and no byte outside of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bundler.scan import bounds
from bundler.scan.report import Fault

_FIELDS = (1, 2, 3, 4, 5)
_MESSAGE = 2  # the wire type of texts and messages
_FIXED = {1: 8, 5: 4}


def pieces(path: Path) -> list[str]:
    """Every piece, in order of its id. Raises Fault `tokenizer.malformed`."""
    with path.open("rb") as file:
        data = file.read(bounds.MAX_SENTENCEPIECE_BYTES + 1)
    if len(data) > bounds.MAX_SENTENCEPIECE_BYTES:
        raise _malformed("it is too long")
    out: list[str] = []
    for number, value in _fields(data):
        if number not in _FIELDS or not isinstance(value, bytes):
            raise _malformed(f"it has the unknown field {number}")
        if number == 1:
            out.append(_piece(value))
    if not out:
        raise _malformed("it has no pieces")
    return out


def _piece(data: bytes) -> str:
    texts = [v for number, v in _fields(data) if number == 1]
    if len(texts) != 1 or not isinstance(texts[0], bytes):
        raise _malformed("a piece has not one text")
    try:
        return texts[0].decode("utf-8")
    except UnicodeDecodeError as e:
        raise _malformed("a piece is not UTF-8") from e


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        length = _FIXED.get(kind, 0)
        if kind == _MESSAGE:
            length, at = _varint(data, at)
        elif kind not in _FIXED:
            raise _malformed(f"it has the wire type {kind}")
        if length > len(data) - at:
            raise _malformed("a field ends behind its message")
        yield key >> 3, data[at : at + length] if kind == _MESSAGE else 0
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            break
        byte = data[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise _malformed("a number in it does not end")


def _malformed(why: str) -> Fault:
    return Fault("tokenizer.malformed", f"it is no SentencePiece model: {why}")
