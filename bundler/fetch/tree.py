"""What every source of models gives: files that are pinned, and what the source says of them."""

from __future__ import annotations

from dataclasses import dataclass

from airgap.format.artifacts import LockedFile
from airgap.format.request import AdapterRequest, ModelRequest

TreeRequest = ModelRequest | AdapterRequest


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A pinned tree of files. `publisher` and `licence` are empty where the source has none."""

    source: str
    revision: str
    format: str
    files: tuple[LockedFile, ...]
    publisher: str = ""
    licence: str = ""
