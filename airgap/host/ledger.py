"""What happened on this host: a hash chain of JSON lines, fsynced one by one.

An entry is one line of canonical JSON; its hash is the SHA-256 of that line with its newline, and
the next entry carries it as `prev`. Whoever can write here can rewrite the whole chain, so it is
tamper-evident only as far as heads of it left the host in receipts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from airgap import fsio, limits
from airgap.errors import FormatError, IntegrityError
from airgap.format import canonical
from airgap.format.codec import Document
from airgap.format.rules import Range
from airgap.format.types import Line, Seconds, Sha256, Token

# `prev` of the first entry, and the head of a ledger without entries.
GENESIS = "0" * 64


@dataclass(frozen=True, kw_only=True)
class Entry(Document):
    """One event. `time` is the host's clock and for people only: order is `seq` and `prev`."""

    seq: Annotated[int, Range(0)]
    time: Seconds
    event: Token
    data: Mapping[Token, Line]
    prev: Sha256

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.to_bytes()).hexdigest()


@dataclass(frozen=True)
class Chain:
    """A verified ledger: its entries, its head, and `torn` bytes after the last whole line."""

    entries: tuple[Entry, ...]
    head: str
    size: int
    torn: int


def read(path: Path) -> Chain:
    """Verify the whole chain. A last line without a newline is a write that a power cut ended.

    Raises IntegrityError `ledger.broken` that names the first line which does not fit.
    """
    try:
        with open(path, "rb") as f:
            data = f.read(limits.MAX_LEDGER_BYTES + 1)
    except FileNotFoundError:
        data = b""
    except OSError as e:
        raise fsio.wrap_os_error(e, f"reading {path}") from e
    if len(data) > limits.MAX_LEDGER_BYTES:
        raise _broken(path, 1, f"it is larger than {limits.MAX_LEDGER_BYTES} bytes")
    size = data.rfind(b"\n") + 1
    entries: list[Entry] = []
    head = GENESIS
    for line in data[:size].splitlines(keepends=True):
        entries.append(_check(path, line, len(entries), head))
        head = hashlib.sha256(line).hexdigest()
    return Chain(tuple(entries), head, size, len(data) - size)


def _check(path: Path, line: bytes, seq: int, prev: str) -> Entry:
    try:
        value = canonical.decode_canonical(line, max_bytes=limits.MAX_LEDGER_ENTRY_BYTES)
        entry = Entry.from_json(value)
    except FormatError as e:
        raise _broken(path, seq + 1, f"{e.why} ({e.where or 'top level'})") from e
    if entry.seq != seq:
        raise _broken(path, seq + 1, f"it is numbered {entry.seq}, expected {seq}")
    if entry.prev != prev:
        raise _broken(path, seq + 1, "it does not carry the hash of the line before it")
    return entry


def _broken(path: Path, line: int, why: str) -> IntegrityError:
    return IntegrityError(
        "ledger.broken",
        f"line {line} of the ledger {path} does not fit the chain",
        why=why,
        do="keep the file as evidence, compare its heads with receipts that left this host; "
        "move it away to begin a new one",
    )


def append(path: Path, event: str, data: Mapping[str, str], *, now: int | None = None) -> Entry:
    """Add one entry; it is on disk when this returns. The caller holds the host's lock.

    A torn last line is cut off, and an entry `ledger-repaired` says so before this one.
    """
    chain = read(path)
    when = int(time.time()) if now is None else now
    new: list[Entry] = []
    seq, head = len(chain.entries), chain.head
    events: list[tuple[str, Mapping[str, str]]] = [(event, data)]
    if chain.torn:
        events.insert(0, ("ledger-repaired", {"bytes": str(chain.torn)}))
    for name, values in events:
        new.append(Entry(seq=seq, time=when, event=name, data=dict(values), prev=head))
        seq, head = seq + 1, new[-1].hash
    fsio.append(path, b"".join(e.to_bytes() for e in new), at=chain.size)
    return new[-1]


def head(path: Path) -> str:
    """Hash of the newest entry of a verified chain; GENESIS when there is none."""
    return read(path).head


def last(chain: Chain, event: str, **data: Any) -> Entry | None:
    """The newest entry of that kind whose data holds all of `data`, or None."""
    for entry in reversed(chain.entries):
        if entry.event == event and all(entry.data.get(k) == v for k, v in data.items()):
            return entry
    return None
