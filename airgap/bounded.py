"""Reading a small file of somebody else's: a plain file, and no larger than such a file can be."""

from __future__ import annotations

import os
from pathlib import Path

from airgap.errors import IntegrityError
from airgap.store import open_regular, read_chunks

COPY_AGAIN = "copy the bundle again from where it was packed"


def read(path: Path, max_bytes: int) -> bytes:
    """All of its bytes. Raises IntegrityError `bundle.too-large`, `integrity.not-a-file`."""
    with open_regular(path) as fd:
        if os.fstat(fd).st_size > max_bytes:
            raise too_much(path, f"bytes (limit {max_bytes})")
        out = bytearray()
        for chunk in read_chunks(fd):
            out += chunk
            if len(out) > max_bytes:
                raise too_much(path, f"bytes (limit {max_bytes})")
        return bytes(out)


def too_much(path: Path, what: str) -> IntegrityError:
    """The error for a file or folder with more of `what` than anything of ours has."""
    return IntegrityError(
        "bundle.too-large",
        f"{path.name} holds too many {what}",
        why="it is larger than anything Sealift makes",
        do=COPY_AGAIN,
    )
