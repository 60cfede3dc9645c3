"""An index and its shards must agree: every tensor exactly once, no shard that nothing names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from bundler.scan import strictjson
from bundler.scan.interface import ScanResult, Subject
from bundler.scan.report import finding, shown

_SUFFIX = ".safetensors.index.json"
Tensors = Mapping[PurePosixPath, frozenset[str]]


def check_shards(artifact: Sequence[Subject], tensors: Tensors, result: ScanResult) -> None:
    """Add findings about each folder. `tensors`: the names in every sound safetensors file."""
    by_path = {s.path: s for s in artifact if s.in_tree}
    indexes = [s for s in by_path.values() if s.path.name.lower().endswith(_SUFFIX)]
    for index in indexes:
        _check_index(index, by_path, tensors, result)
    indexed = {i.path.parent for i in indexes}
    for folder in sorted({p.parent for p in tensors}, key=str):
        shards = sorted((p for p in tensors if p.parent == folder), key=str)
        if folder not in indexed:
            _check_unindexed([by_path[p] for p in shards], tensors, result)


def _check_index(
    index: Subject, files: Mapping[PurePosixPath, Subject], tensors: Tensors, result: ScanResult
) -> None:
    weight_map = _weight_map(index)
    if weight_map is None:
        _add(result, index, "safetensors.index", "it holds no table 'weight_map' of file names")
        return
    folder = index.path.parent
    wanted: dict[PurePosixPath, set[str]] = {}
    for tensor, shard in weight_map.items():
        wanted.setdefault(folder / shard, set()).add(tensor)
    for path, names in sorted(wanted.items(), key=lambda item: str(item[0])):
        if path not in files or path.parent != folder:
            _add(result, index, "safetensors.missing-shard", f"{shown(path)} is not in the folder")
        elif path in tensors and tensors[path] != names:
            other = sorted(tensors[path] ^ names)[0]
            text = f"the index and {shown(path.name)} disagree, first on tensor {shown(other)}"
            _add(result, index, "safetensors.index-disagrees", text)
    for path in sorted(tensors, key=str):
        if path.parent == folder and path not in wanted:
            text = f"no entry of {shown(index.path.name)} names this file"
            _add(result, files[path], "safetensors.orphan-shard", text)


def _weight_map(index: Subject) -> dict[str, str] | None:
    """None also for JSON that is not strict: the walk over all JSON reports that by itself."""
    try:
        document: Any = strictjson.read(index.file)
    except strictjson.Malformed:
        return None
    table = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(table, dict) or not table:
        return None
    if not all(isinstance(v, str) and "\x00" not in v for v in table.values()):
        return None
    return table


def _check_unindexed(shards: list[Subject], tensors: Tensors, result: ScanResult) -> None:
    """Without an index a loader takes all files; which one wins for a name is up to it."""
    seen: dict[str, PurePosixPath] = {}
    for shard in shards:
        twice = sorted(tensors[shard.path] & seen.keys())
        if twice:
            text = f"tensor {shown(twice[0])} is also in {shown(seen[twice[0]].name)}"
            _add(result, shard, "safetensors.tensor-twice", text)
        seen.update(dict.fromkeys(tensors[shard.path], shard.path))


def _add(result: ScanResult, subject: Subject, id: str, text: str) -> None:
    result.findings.append(finding("safetensors", subject, id, "medium", text))
