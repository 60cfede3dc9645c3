"""Whether bytes without a magic are a pickle: protocols 0 and 1 are opcodes, often plain text.

Nothing is unpickled: `pickletools.genops` reads the opcodes, we follow the depth of the stack.
"""

from __future__ import annotations

import io
import pickletools
import re
from dataclasses import dataclass, field
from typing import Any

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


def looks_like_pickle(head: bytes, *, whole: bool) -> bool:
    """True when an unpickler reading from the first byte of `head` would call something, or would
    return a value and find nothing behind it.

    `whole`: `head` is the entire file. Text whose first letters happen to be opcodes comes to an
    error within a few of them. A stream that is still well-formed at the end of what we follow,
    and has imported something, counts as a pickle.
    """
    stack = _Stack()
    imported = False
    count = 0
    try:
        for op, arg, at in pickletools.genops(io.BytesIO(head)):
            count += 1
            if not stack.step(op):
                return False
            imported = imported or op.name in _UNNAMED or _imports(op.name, arg)
            if imported and (op.name in _CALLS or op.name == "STOP"):
                return True
            if op.name == "STOP":
                return whole and at is not None and at + 1 == len(head) and count > 1
            if count >= bounds.SNIFF_PICKLE_OPS:
                return True
    except (ValueError, OverflowError, IndexError) as e:
        # What runs on past the bytes we have is not followed: only a line of text can do that
        # without a NUL, and a first line that long is no prose.
        return not whole and (imported or str(e).startswith("no newline found"))
    return False


def _imports(name: str, arg: Any) -> bool:
    return name in _NAMED and _IMPORTABLE.fullmatch(str(arg)) is not None
