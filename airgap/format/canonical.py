"""The one strict JSON decoder and the one canonical encoder.

Canonical form (docs/bundle-format.md section 2): UTF-8, keys sorted by code point, no white space,
no floats, no escapes but the ones RFC 8259 requires, one final newline.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from airgap import limits
from airgap.errors import FormatError

Json = Any

_ESCAPE = re.compile(r"\\.", re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def encode(value: Json) -> bytes:
    """Canonical bytes of plain JSON data (dict, list, str, int, bool, None)."""
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode("utf-8") + b"\n"


def decode(data: bytes, *, max_bytes: int = limits.MAX_DOCUMENT_BYTES) -> Json:
    """Decode strictly: no duplicate keys, floats, huge integers, lone surrogates, BOM or rest.

    Raises FormatError with id `format.json` or `format.too-large`.
    """
    if len(data) > max_bytes:
        raise FormatError(
            "format.too-large", "", f"it has {len(data)} bytes, the limit is {max_bytes}"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise FormatError("format.json", f"byte {e.start}", "it is not valid UTF-8") from e
    _check_depth(text)
    # What was UTF-8 holds a surrogate only where an escape writes one.
    escaped = "\\u" in text
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_text if escaped else _unique,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
            parse_int=_bounded_int,
        )
    except json.JSONDecodeError as e:
        raise FormatError("format.json", f"character {e.pos}", e.msg) from e
    if escaped:
        # Strings inside tables were checked as the tables were built; these lie in none.
        _check_list([value])
    return value


def decode_canonical(data: bytes, *, max_bytes: int = limits.MAX_DOCUMENT_BYTES) -> Json:
    """As `decode`, and the bytes must be the canonical form, so that digest means content."""
    value = decode(data, max_bytes=max_bytes)
    if encode(value) != data:
        raise FormatError("format.not-canonical", "", "its bytes are not in canonical form")
    return value


def _check_depth(text: str) -> None:
    """Bound nesting before the recursive parser sees it (stdlib leaks RecursionError)."""
    # Without escapes each quote begins or ends a string: every other part lies in none.
    outside = "".join(_ESCAPE.sub("", text).split('"')[::2])
    depth = 0
    for bracket in outside.encode("utf-8").translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > limits.MAX_JSON_DEPTH:
                raise FormatError(
                    "format.json", "", f"it nests deeper than {limits.MAX_JSON_DEPTH} levels"
                )
        else:
            depth -= 1


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    out = dict(pairs)
    if len(out) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise FormatError("format.json", key[:80], "this key stands there twice")
            seen.add(key)
    return out


def _unique_text(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """As `_unique`, where strings may hold lone surrogates."""
    for key, value in pairs:
        _check_text(key)
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list):
            _check_list(value)
    return _unique(pairs)


def _check_list(values: list[Json]) -> None:
    for value in values:
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, list):
            _check_list(value)


def _check_text(text: str) -> None:
    """A lone surrogate cannot be written as UTF-8: two encoders would disagree about it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise FormatError("format.json", "", "a string holds a lone surrogate") from e


def _refuse_number(text: str) -> NoReturn:
    raise FormatError("format.json", text[:40], "only integers are allowed; decimals are strings")


def _bounded_int(text: str) -> int:
    if len(text) > limits.MAX_JSON_INT_DIGITS or abs(int(text)) > limits.MAX_JSON_INT:
        raise FormatError("format.json", text[:40], "the integer is outside +-(2^53 - 1)")
    return int(text)
