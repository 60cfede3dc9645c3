"""What is fetched, and what a source wants to see before it delivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Access(Protocol):
    """What a source wants to see before it delivers. Called from several threads."""

    def headers(self, url: str) -> Mapping[str, str]:
        """Headers of a request for `url`, which is of the item's own origin (never another)."""

    def refused(self, status: int, headers: Mapping[str, str]) -> bool:
        """Called when the item's own origin answered 401, 403 or another 4xx that stays: whether
        one more try may succeed, because a token was renewed. May raise a better error."""


@dataclass(frozen=True)
class Item:
    """One file to fetch. `size` is in bytes, None when its source does not tell it.

    Where the source gives no SHA-256, `git_blob` pins the bytes: their id in git, with a size.
    """

    url: str
    sha256: str | None
    size: int | None
    label: str
    access: Access | None = None
    git_blob: str | None = None

    def __post_init__(self) -> None:
        if self.sha256 is None and (self.git_blob is None or self.size is None):
            raise ValueError("an item needs a SHA-256, or a git blob id and a size")

    @property
    def key(self) -> str:
        """A name for the bytes that are wanted, wherever they come from."""
        return self.sha256 or f"git-{self.git_blob}-{self.size}"
