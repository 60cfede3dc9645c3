"""Reading the front of a GGUF file: integers, texts, values, each checked against what is left."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from bundler.scan import bounds
from bundler.scan.report import Fault

# Type numbers of values: bytes of each fixed one, then the two that have a length.
FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING = 8
ARRAY = 9
# Least bytes of one element: a text is at least its length, an array its type and length.
_LEAST = {**FIXED, STRING: 8, ARRAY: 12}


class Header:
    """The front of an open GGUF file, read once, forwards. `at` counts bytes from its start."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.size = size
        self.at = 0
        self._file = file
        self._end = min(size, bounds.MAX_GGUF_HEADER_BYTES)
        self._elements = 0

    def _room(self, count: int) -> None:
        if count > self._end - self.at:
            raise Fault(
                "gguf.count", f"at byte {self.at} the header wants {count} more, past its end"
            )

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._room(count)
        data = self._file.read(count)
        if len(data) != count:
            raise Fault("gguf.count", f"the file ends within the header at byte {self.at}")
        self.at += count
        return data

    def skip(self, count: int) -> None:
        """Step over `count` bytes."""
        self._room(count)
        self._file.seek(count, os.SEEK_CUR)
        self.at += count

    def uint(self, width: int) -> int:
        """An unsigned little-endian integer of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def text(self, limit: int) -> str:
        """A text of at most `limit` bytes of UTF-8."""
        at, length = self.at, self.uint(8)
        if length > limit:
            raise Fault("gguf.count", f"at byte {at} a text of {length} bytes, over {limit}")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as e:
            raise Fault("gguf.text", f"the text at byte {at} is not UTF-8") from e

    def expect(self, what: str, count: int, least: int, limit: int) -> None:
        """Refuse `count` things of at least `least` bytes where they cannot all stand."""
        if count > limit or count * least > self._end - self.at:
            raise Fault("gguf.count", f"at byte {self.at} the header claims {count} {what}")

    def skip_value(self, type: int, depth: int) -> None:
        """Step over one value of `type`, checking every length in it."""
        if type in FIXED:
            self.skip(FIXED[type])
        elif type == STRING:
            self.skip(self.uint(8))
        elif type == ARRAY:
            self._skip_array(depth + 1)
        else:
            raise Fault("gguf.type", f"at byte {self.at} a value has the unknown type {type}")

    def _skip_array(self, depth: int) -> None:
        if depth > bounds.MAX_GGUF_NESTING:
            raise Fault("gguf.nesting", f"arrays nest deeper than {bounds.MAX_GGUF_NESTING}")
        type, count = self.uint(4), self.uint(8)
        if type not in _LEAST:
            raise Fault("gguf.type", f"at byte {self.at} an array has the unknown type {type}")
        self.expect("elements", count, _LEAST[type], bounds.MAX_GGUF_ELEMENTS)
        self._elements += count
        if self._elements > bounds.MAX_GGUF_ELEMENTS:
            raise Fault("gguf.count", f"arrays of more than {bounds.MAX_GGUF_ELEMENTS} elements")
        if type in FIXED:
            self.skip(FIXED[type] * count)
            return
        for _ in range(count):
            self.skip_value(type, depth)


@contextlib.contextmanager
def open_header(path: Path) -> Iterator[Header]:
    """The file at `path`, buffered so that small steps do not each read from the disk."""
    with path.open("rb", buffering=256 * 1024) as file:
        yield Header(file, os.fstat(file.fileno()).st_size)
