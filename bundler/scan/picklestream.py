"""Whether bytes without a magic are a pickle: protocols 0 and 1 are opcodes, often plain text.

Nothing is unpickled: `pickletools.genops` reads the opcodes, we follow the depth of the stack.
"""

from __future__ import annotations

import io
import pickletools
import re
import warnings
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, cast

from bundler.scan import bounds

# Opcodes that name something to import. GLOBAL and INST carry the names; the others take them
# from the stack or the extension registry.
_NAMED = frozenset(["GLOBAL", "INST"])
_UNNAMED = frozenset(["STACK_GLOBAL", "EXT1", "EXT2", "EXT4"])
# Opcodes that call what was imported.
_CALLS = frozenset(["REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"])
_IMPORTABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)* [^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass
class _Stack:
    """Depth of the unpickler's stack and the depths at its marks."""

    depth: int = 0
    marks: list[int] = field(default_factory=list)

    def step(self, op: Any) -> bool:
        """Apply one opcode; False when the unpickler would stop here with an error."""
        before = list(op.stack_before)
        if pickletools.markobject in before:
            if not self.marks:
                return False
            self.depth = self.marks.pop()
            before = before[: before.index(pickletools.markobject)]
        elif op.name in ("POP", "POP_MARK") and self.marks and self.depth == self.marks[-1]:
            self.marks.pop()
            return True
        if self.depth - (self.marks[-1] if self.marks else 0) < len(before):
            return False
        self.depth -= len(before)
        if op.name == "MARK":
            self.marks.append(self.depth)
        else:
            self.depth += len(op.stack_after)
        return True


class _Skipped(bytes):
    """Stands for a long value that was stepped over: it has the length, not the bytes."""

    stated: int

    def __len__(self) -> int:
        return self.stated


class _Reader:
    """What genops reads from: a file whose long values are stepped over, not held in memory."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        """`count` bytes, or fewer at the end, which genops takes for an error."""
        if count <= bounds.SNIFF_PICKLE_VALUE_BYTES or self._file.tell() + count > self._size:
            return self._file.read(min(count, bounds.SNIFF_PICKLE_VALUE_BYTES))
        self._file.seek(count, io.SEEK_CUR)
        skipped = _Skipped()
        skipped.stated = count
        return skipped

    def readline(self) -> bytes:
        """A line; one without an end within the bound is an error to genops, and told apart."""
        line = self._file.readline(bounds.SNIFF_PICKLE_LINE_BYTES)
        if len(line) == bounds.SNIFF_PICKLE_LINE_BYTES and not line.endswith(b"\n"):
            raise _EndlessLine
        return line


class _EndlessLine(Exception):
    """A text argument longer than any that we follow."""


def looks_like_pickle(file: BinaryIO, size: int) -> bool:
    """True when an unpickler reading from the start of `file` (`size` bytes) would call something,
    or would return values and find nothing behind them.

    Text whose first letters happen to be opcodes comes to an error within a few of them. A stream
    that is still well-formed at the end of what we follow counts as a pickle.
    """
    with warnings.catch_warnings():
        # genops decodes escapes as it reads them; what text means by a backslash is no concern.
        warnings.simplefilter("ignore", DeprecationWarning)
        return _looks_like_pickle(file, size)


def _looks_like_pickle(file: BinaryIO, size: int) -> bool:
    file.seek(0)
    reader = _Reader(file, size)
    left = bounds.SNIFF_PICKLE_OPS
    try:
        while left > 0:
            used, imported = _follow(reader, left)
            left -= used
            if imported:
                return True
            if file.tell() == size:
                return used > 1
    except _EndlessLine:
        return True
    except (ValueError, OverflowError, IndexError):
        return False
    return True


def _follow(reader: _Reader, most: int) -> tuple[int, bool]:
    """Follow one pickle to its STOP: opcodes used, and whether it imports something and goes on to
    call or to return it. Raises ValueError where an unpickler would."""
    stack = _Stack()
    imported = False
    used = 0
    for op, arg, _ in pickletools.genops(cast(IO[bytes], reader)):
        used += 1
        if not stack.step(op):
            raise ValueError("the stack runs empty")
        imported = imported or op.name in _UNNAMED or _imports(op.name, arg)
        if (imported and (op.name in _CALLS or op.name == "STOP")) or used >= most:
            break
    return used, imported


def _imports(name: str, arg: Any) -> bool:
    return name in _NAMED and _IMPORTABLE.fullmatch(str(arg)) is not None
