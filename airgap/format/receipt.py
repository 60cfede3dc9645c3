"""The receipt: what a host holds and runs. Carried out; nothing in it but names and digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated

from airgap.format.codec import Document
from airgap.format.rules import Choice, Range
from airgap.format.types import FileSize, Name, Release, Seconds, Sha256, Token, Version


@dataclass(frozen=True, kw_only=True)
class CheckResult(Document):
    """One smoke prompt by the SHA-256 of its text; prompts and answers stay on the host."""

    prompt: Sha256
    passed: bool
    milliseconds: Annotated[int, Range(0, 86_400_000)]


@dataclass(frozen=True, kw_only=True)
class Receipt(Document):
    """Written after a switch. `host` is a random identity made at `trust add`.

    `ledger_head` is the hash of the ledger's newest entry: a copy outside makes it tamper-evident.
    """

    schema: Annotated[str, Choice(("sealift.receipt/1",))] = "sealift.receipt/1"
    host: Token
    installed: Seconds
    name: Name
    version: Version
    release: Release
    manifest: Sha256
    root_version: Annotated[int, Range(1)]
    targets_version: Annotated[int, Range(1)]
    files: Annotated[int, Range(0)]
    bytes: FileSize
    checks: tuple[CheckResult, ...]
    ledger_head: Sha256

    @property
    def code(self) -> str:
        """Twelve hex digits of its SHA-256, in fours, for reading out over a telephone."""
        h = hashlib.sha256(self.to_bytes()).hexdigest()
        return f"{h[:4]}-{h[4:8]}-{h[8:12]}"
