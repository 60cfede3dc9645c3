"""JSON as models carry it: strict where two readers could differ, tolerant of numbers.

Unlike our own documents (airgap.format.canonical) a model's files hold floats, `Infinity` (which
transformers writes) and integers of 31 digits (`model_max_length`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bundler.scan import bounds


class Malformed(Exception):
    """Not one strict JSON document; the text says why, without machine paths."""


def read(path: Path) -> Any:
    """The one document in the file. Raises Malformed; OSError when it cannot be read."""
    with path.open("rb") as file:
        data = file.read(bounds.MAX_JSON_BYTES + 1)
    return decode(data)


def decode(data: bytes) -> Any:
    """As `read`, for bytes: UTF-8 without BOM, no key twice, bounded in size and depth."""
    if len(data) > bounds.MAX_JSON_BYTES:
        raise Malformed(f"it has more than {bounds.MAX_JSON_BYTES} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Malformed(f"it is not UTF-8 at byte {e.start}") from e
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_int, parse_constant=_constant)
    except json.JSONDecodeError as e:
        raise Malformed(f"{e.msg} at character {e.pos}") from e
    except RecursionError as e:
        raise Malformed("it nests too deeply") from e


def walk(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every (place, key, value) in the document, in order; items of a list bear the list's key.

    Raises Malformed past `MAX_JSON_VALUES` values.
    """
    todo: list[tuple[str, str, Any]] = [("", "", document)]
    count = 0
    while todo:
        place, key, value = todo.pop()
        count += 1
        if count > bounds.MAX_JSON_VALUES:
            raise Malformed(f"it has more than {bounds.MAX_JSON_VALUES} values")
        yield place, key, value
        if isinstance(value, dict):
            children = [(f"{place}.{k}"[-200:], k, v) for k, v in value.items()]
            todo.extend(reversed(children))
        elif isinstance(value, list):
            todo.extend((f"{place}[]"[-200:], key, v) for v in reversed(value))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise Malformed("a key stands there twice, and readers differ in which one counts")
    return out


def _int(text: str) -> int:
    if len(text) > bounds.MAX_JSON_DIGITS:
        raise Malformed(f"an integer has {len(text)} digits")
    return int(text)


def _constant(text: str) -> float:
    """transformers writes `Infinity` for open ranges; `NaN` equals nothing, not even itself."""
    if text == "NaN":
        raise Malformed("NaN is not a value")
    return float(text.replace("Infinity", "inf"))
