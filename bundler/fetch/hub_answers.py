"""What the Hub's answers mean: revisions, files and models, each held to its form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from airgap import limits
from airgap.errors import SourceError

REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
QUANTISED = "base_model:quantized:"
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Revision:
    """What a branch, tag or PR ref of a repository means now. `licence` is the card's, or empty;
    `quantised_from`: repositories that the card says it is a quantised form of."""

    repo: str
    commit: str
    licence: str
    quantised_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """A model that a search found: what it says of itself, and how often it was fetched lately."""

    repo: str
    tags: frozenset[str]
    downloads: int


@dataclass(frozen=True)
class HubFile:
    """A file of a commit: LFS files have `sha256`, the small ones their git blob id."""

    path: str
    size: int
    sha256: str | None
    git_blob: str | None


def licence(card: Any) -> str:
    """The card's licence: an SPDX identifier where it is one, else the Hub's word for it."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    word = getattr(card, "license", None)
    if word == "other":
        word = getattr(card, "license_name", None) or word
    if not isinstance(word, str) or not word.isprintable():
        return ""
    try:
        return str(canonicalize_license_expression(word))[: limits.MAX_LINE_CHARS]
    except InvalidLicenseExpression:
        return word[: limits.MAX_LINE_CHARS]


def file(entry: Any, source: str) -> HubFile:
    """An entry of a tree. Raises SourceError `source.hub` where it contradicts itself."""
    sha256 = entry.lfs.sha256 if entry.lfs is not None else None
    good = isinstance(entry.path, str) and isinstance(entry.size, int)
    good = good and 0 <= entry.size <= limits.MAX_FILE_BYTES
    if sha256 is not None:
        good = good and SHA256.fullmatch(sha256) is not None and entry.lfs.size == entry.size
    elif not isinstance(entry.blob_id, str) or not COMMIT.fullmatch(entry.blob_id):
        good = False
    if not good:
        raise strange(source, f"its tree contradicts itself at {ascii(entry.path)[:100]}")
    return HubFile(entry.path, entry.size, sha256, None if sha256 else entry.blob_id)


def bases(tags: Any) -> Iterator[str]:
    """Of what a model is a quantised form, by the tags that the Hub makes of its card."""
    for tag in tags or ():
        if isinstance(tag, str) and tag.startswith(QUANTISED):
            base = tag.removeprefix(QUANTISED)
            if REPO.fullmatch(base):
                yield base


def listed(info: Any) -> Listed:
    """A model of a search; what is of another kind than it must be is left out."""
    tags = frozenset(t for t in info.tags or () if isinstance(t, str))
    downloads = info.downloads if type(info.downloads) is int and info.downloads >= 0 else 0
    return Listed(info.id, tags, downloads)


def strange(source: str, why: str) -> SourceError:
    """The error for an answer that no Hub should give."""
    return SourceError(
        "source.hub",
        f"the Hub's answer about {source} cannot be relied on",
        why=why,
        do="check HF_ENDPOINT; if it is the right Hub, report this",
    )
