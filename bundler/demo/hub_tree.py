"""What a Hub knows of its repositories: commits, trees and git ids of files, from plain folders.

A folder is read once, when it is added; its bytes are read again when somebody asks for a file. So
a file that is changed meanwhile is served with the old tree, as a damaged or hostile Hub would.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What the Hub's own .gitattributes sends to LFS; anything longer than LFS_BYTES goes there too.
_LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".onnx", ".h5", ".msgpack")
LFS_BYTES = 10 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """A file of a commit. `lfs`: SHA-256 of an LFS file, whose `blob_id` is that of its pointer."""

    path: str
    size: int
    blob_id: str
    file: Path
    lfs: str | None = None
    xet: bool = False

    @property
    def etag(self) -> str:
        """What the Hub sends as ETag: the SHA-256 of an LFS file, else the git blob id."""
        return self.lfs or self.blob_id

    def to_json(self) -> dict[str, Any]:
        """The file as the tree API writes it."""
        out: dict[str, Any] = {
            "type": "file",
            "oid": self.blob_id,
            "size": self.size,
            "path": self.path,
        }
        if self.lfs is not None:
            pointer = len(pointer_text(self.lfs, self.size))
            out["lfs"] = {"oid": self.lfs, "size": self.size, "pointerSize": pointer}
        if self.xet:
            out["xetHash"] = self.lfs
        return out


@dataclass(frozen=True)
class Commit:
    """One state of a repository. `id`: 40 hex digits, the same for the same files."""

    id: str
    files: dict[str, Entry]
    card: dict[str, Any]

    def tags(self) -> list[str]:
        """What the Hub's search knows it by: formats of its files, and what its card says it was
        made of (`base_model`, `base_model_relation`)."""
        suffixes = {Path(f).suffix.lower().lstrip(".") for f in self.files}
        tags = sorted(suffixes & {"safetensors", "gguf", "onnx"})
        bases = self.card.get("base_model") or []
        relation = self.card.get("base_model_relation")
        for base in [bases] if isinstance(bases, str) else bases:
            tags.append(f"base_model:{base}")
            tags += [f"base_model:{relation}:{base}"] if relation else []
        return tags

    def folders(self) -> list[dict[str, Any]]:
        """The folders as the recursive tree API writes them."""
        paths = {str(p) for f in self.files for p in Path(f).parents if str(p) != "."}
        return [
            {"type": "directory", "oid": hashlib.sha1(p.encode()).hexdigest(), "size": 0, "path": p}  # noqa: S324 - a git id
            for p in sorted(paths)
        ]


@dataclass
class Repository:
    """A repository: `refs` are branches, tags and PR refs that point to commits.

    `tags`: which of them are tags.
    `private`: only `members` (tokens) know of it. `gated`: all see it, only `members` get files.
    `moved_to`: it was renamed; every request is redirected there. `downloads`: what a search is
    sorted by.
    """

    name: str
    refs: dict[str, str] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    members: frozenset[str] = frozenset()
    moved_to: str | None = None
    downloads: int = 0

    def add(self, folder: Path, revision: str = "main", *, xet: bool = False) -> Commit:
        """Make `folder` a commit, and let `revision` point to it."""
        commit = read_folder(folder, xet=xet)
        self.commits[commit.id] = commit
        self.refs[revision] = commit.id
        return commit

    def at(self, revision: str) -> Commit | None:
        """The commit that a branch, tag, PR ref or commit id means."""
        return self.commits.get(self.refs.get(revision, revision))


def read_folder(folder: Path, *, xet: bool = False) -> Commit:
    """A folder as a commit. `xet`: its LFS files are stored in Xet, as the Hub does by now."""
    files = {e.path: e for e in _entries(folder, xet)}
    listing = "".join(f"{e.blob_id} {e.path}\n" for e in files.values())
    # A git id is SHA-1 by definition; nothing here relies on it.
    commit_id = hashlib.sha1(f"commit {listing}".encode()).hexdigest()  # noqa: S324
    return Commit(commit_id, files, _card(folder / "README.md"))


def _entries(folder: Path, xet: bool) -> Iterator[Entry]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(parent) / name
            yield _entry(file.relative_to(folder).as_posix(), file, xet)


def _entry(path: str, file: Path, xet: bool) -> Entry:
    size = file.stat().st_size
    if size < LFS_BYTES and not path.endswith(_LFS_SUFFIXES):
        data = file.read_bytes()
        return Entry(path, len(data), git_blob_id(data), file)
    sha256 = _sha256(file)
    return Entry(path, size, git_blob_id(pointer_text(sha256, size)), file, sha256, xet)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def git_blob_id(data: bytes) -> str:
    """git's name for a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 - git's own id


def pointer_text(sha256: str, size: int) -> bytes:
    """What git keeps in place of an LFS file (git-lfs specification, version 1)."""
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def _card(readme: Path) -> dict[str, Any]:
    """The metadata at the top of the model card; empty where there is none."""
    import yaml

    if not readme.is_file():
        return {}
    parts = readme.read_text("utf-8").split("---\n", 2)
    data = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    return data if isinstance(data, dict) else {}
