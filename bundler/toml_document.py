"""TOML that people write -> a strict document, with errors that say where and what was meant.

The standard library's parser keeps no positions, so the line is found again by reading the text:
`locate` follows table headers and keys. It is for messages only.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import tomllib

from airgap import limits
from airgap.errors import FormatError, UsageError
from airgap.format.codec import Document

D = TypeVar("D", bound=Document)

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]#]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*(?:"([^"]+)"|'([^']+)'|([A-Za-z0-9_.-]+))\s*=""")
_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")
_LINE_NUMBER = re.compile(r"\(at line (\d+), column \d+\)")


def read(path: Path, kind: type[D], what: str, prepare: Callable[[Any], Any]) -> D:
    """The document of type `kind` in the TOML file `path`.

    `what` is how people call it (`request`); errors get the id `<what>.invalid`. `prepare` turns
    TOML's data (dates included) into plain JSON data.
    """
    text = _text(path, what)
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as e:
        raise _error(path, what, _line_of_syntax(str(e)), "", _without_place(str(e))) from e
    try:
        return kind.from_json(plain(prepare(data)))
    except FormatError as e:
        raise _error(path, what, locate(text, e.where), e.where, _for_people(e.why)) from e


def day(value: Any) -> Any:
    """A TOML date as text; any other value as it is, for the strict decoder to judge."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value.isoformat()
    return value


def last_second(value: Any) -> Any:
    """A TOML date (or its text) as the last UTC second of that day; anything else as it is."""
    text = day(value)
    if not isinstance(text, str):
        return value
    try:
        start = datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return value
    return int(start.timestamp()) + 86_399


def plain(value: Any, where: str = "") -> Any:
    """Plain JSON data, or FormatError for a TOML value that documents do not know."""
    if isinstance(value, dict):
        return {k: plain(v, f"{where}.{k}" if where else k) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float):
        raise FormatError("format.value", where, f"{value} must stand in quotes")
    if isinstance(value, datetime.date | datetime.time):
        raise FormatError("format.value", where, "a date has no meaning here; put it in quotes")
    return value


def locate(text: str, where: str) -> int | None:
    """The 1-based line of the key path `where` (`model[0].path`), or of its nearest table."""
    steps = _steps(where)
    best: int | None = None
    depth = 0
    for number, at in _keys(text):
        shared = _shared(at, steps)
        if shared > depth:
            best, depth = number, shared
        if shared == len(steps) and steps:
            return number
    return best


def _keys(text: str) -> Iterable[tuple[int, list[str | int]]]:
    """(line, full key path) of every table header and every key at the start of a line."""
    table: list[str | int] = []
    counts: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header:
            table = _table(header.group(2), header.group(1) == "[[", counts)
            yield number, table
            continue
        key = _KEY.match(line)
        if key:
            name = key.group(1) or key.group(2) or key.group(3)
            yield number, [*table, *_split(name)]


def _table(name: str, is_list: bool, counts: dict[str, int]) -> list[str | int]:
    out: list[str | int] = []
    parts = _split(name)
    for i, part in enumerate(parts):
        out.append(part)
        dotted = ".".join(parts[: i + 1])
        if is_list and i == len(parts) - 1:
            counts[dotted] = counts.get(dotted, -1) + 1
        if dotted in counts:
            out.append(counts[dotted])
    return out


def _split(name: str) -> list[str]:
    return [part.strip().strip("\"'") for part in name.split(".")]


def _steps(where: str) -> list[str | int]:
    return [int(m.group(2)) if m.group(2) else m.group(1) for m in _STEP.finditer(where)]


def _shared(at: list[str | int], steps: list[str | int]) -> int:
    """How many steps of the wanted path this line's path leads along; 0 when it leads aside."""
    if len(at) > len(steps) or at != steps[: len(at)]:
        return 0
    return len(at)


def _text(path: Path, what: str) -> str:
    try:
        with path.open("rb") as f:
            data = f.read(limits.MAX_DOCUMENT_BYTES + 1)
        if len(data) > limits.MAX_DOCUMENT_BYTES:
            raise _error(path, what, None, "", f"longer than {limits.MAX_DOCUMENT_BYTES} bytes")
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise _error(path, what, None, "", f"byte {e.start} is not UTF-8") from e
    except OSError as e:
        raise UsageError(
            f"{what}.unreadable",
            f"the {what} {path} cannot be read",
            why=f"{e.strerror or e}",
            do="check the path; ready requests and policies lie in manifests/",
        ) from e


def _line_of_syntax(message: str) -> int | None:
    found = _LINE_NUMBER.search(message)
    return int(found.group(1)) if found else None


def _without_place(message: str) -> str:
    return "it is not TOML: " + message.split(" (at ")[0]


def _for_people(why: str) -> str:
    if why == "expected text, found an integer":
        return f"{why}; put it in quotes"
    return why


def _error(path: Path, what: str, line: int | None, where: str, why: str) -> UsageError:
    place = f"{path}, line {line}" if line else str(path)
    return UsageError(
        f"{what}.invalid",
        f"the {what} is not valid: {place}",
        why=f"{where}: {why}" if where else why,
        do=f"correct it and run the same command again; every key is described in "
        f"docs/schemas/{what}.schema.json",
    )
