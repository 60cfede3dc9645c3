"""Any well-formed document: strategies made from the dataclasses, so a new field is drawn too."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Annotated, Any, Union, get_args, get_origin

from hypothesis import assume
from hypothesis import strategies as st

from airgap.errors import FormatError
from airgap.format.artifacts import (
    Adapter,
    Image,
    LockedAdapter,
    LockedImage,
    LockedModel,
    LockedPlainFiles,
    LockedWheels,
    Model,
    PlainFiles,
    Wheels,
)
from airgap.format.codec import Document
from airgap.format.evidence import Coverage, Covered, Findings
from airgap.format.facts import Facts
from airgap.format.lock import Lock
from airgap.format.manifest import EVIDENCE_KINDS, Evidence, Manifest
from airgap.format.policy import Policy
from airgap.format.receipt import Receipt
from airgap.format.request import AdapterRequest, ModelRequest, Request, WheelsRequest
from airgap.format.rules import Choice, Range, Text
from airgap.format.statement import Envelope, Statement
from airgap.format.types import FileEntry, Serve

DOCUMENTS: tuple[type[Document], ...] = (
    Coverage,
    Envelope,
    Facts,
    Findings,
    Lock,
    Manifest,
    Policy,
    Receipt,
    Request,
    Statement,
)

PATHS = st.from_regex(r"[a-z][a-z0-9_]{0,8}(/[a-z][a-z0-9]{0,4})?\.json", fullmatch=True).map(
    PurePosixPath
)


# Lists that no document may leave empty.
_NEVER_EMPTY = frozenset({"files", "requirements", "signatures", "subject"})


def document(cls: type[Document]) -> st.SearchStrategy[Document]:
    """Instances of `cls`."""
    return st.deferred(lambda: _document(cls))


@st.composite
def _document(draw: st.DrawFn, cls: type[Document]) -> Document:
    hints = typing.get_type_hints(cls, include_extras=True)
    kwargs = {}
    for f in dataclasses.fields(cls):
        if f.name == "kind" and cls not in (Evidence, Covered):
            continue
        drawn = draw(value(hints[f.name]))
        if f.name in _NEVER_EMPTY and drawn == ():
            drawn = (draw(value(get_args(hints[f.name])[0])),)
        kwargs[f.name] = drawn
    _TIDY.get(cls, _as_drawn)(kwargs)
    try:
        return cls(**kwargs)
    except FormatError:
        assume(False)
        raise


def value(hint: Any) -> st.SearchStrategy[Any]:
    """Values that the annotation `hint` admits."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, *rules = get_args(hint)
        return _ruled(base, rules[0])
    if origin in (Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        drawn = [value(o) for o in options]
        return st.one_of([st.none(), *drawn] if type(None) in get_args(hint) else drawn)
    if origin is tuple:
        return st.lists(value(get_args(hint)[0]), max_size=2).map(tuple)
    if hint is PurePosixPath:
        return PATHS
    if hint is bool:
        return st.booleans()
    return document(hint)


def _ruled(base: Any, rule: Any) -> st.SearchStrategy[Any]:
    if isinstance(rule, Choice):
        return st.sampled_from(rule.values)
    if isinstance(rule, Range):
        return st.integers(rule.low, min(rule.high, 2**53 - 1))
    assert isinstance(rule, Text)
    if rule.pattern is None:
        return st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
    pattern = re.compile(rule.pattern, re.ASCII)
    if pattern.fullmatch("any word\u00e9"):  # free text: drawing from the pattern would be slow
        words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
        return words.filter(lambda s: pattern.fullmatch(s) is not None)
    return st.from_regex(pattern, fullmatch=True).filter(
        lambda s: len(s) <= rule.max_chars and s.isascii()
    )


def _as_drawn(_kwargs: dict[str, Any]) -> None:
    return None


def _tidy_files(kwargs: dict[str, Any]) -> None:
    by_path = {f.path: f for f in kwargs["files"]}
    kwargs["files"] = tuple(by_path[p] for p in sorted(by_path, key=str))
    assume(kwargs["files"])


def _tidy_wheels(kwargs: dict[str, Any]) -> None:
    files = kwargs["files"]
    kwargs["files"] = tuple(
        dataclasses.replace(f, path=PurePosixPath(f"w{i}-1.0-py3-none-any.whl"))
        for i, f in enumerate(files)
    )
    assume(files)


def _tidy_image(kwargs: dict[str, Any]) -> None:
    first = dataclasses.replace(kwargs["files"][0], path=PurePosixPath("manifest.json"))
    kwargs["files"] = (first,)
    kwargs["digest"] = first.sha256


def _tidy_serve(kwargs: dict[str, Any]) -> None:
    names = dict.fromkeys(kwargs["adapters"])
    names.pop(kwargs["name"], None)
    kwargs["adapters"] = tuple(names)
    kwargs["check"] = tuple(dataclasses.replace(c, model=None) for c in kwargs["check"])


def _tidy_artifacts(kwargs: dict[str, Any]) -> None:
    by_name = {a.name: a for a in kwargs["artifacts"]}
    kwargs["artifacts"] = tuple(by_name[n] for n in sorted(by_name))
    kwargs["serve"] = None


def _tidy_manifest(kwargs: dict[str, Any]) -> None:
    _tidy_artifacts(kwargs)
    by_kind = {e.kind: e for e in kwargs["evidence"]}
    kwargs["evidence"] = tuple(by_kind[k] for k in EVIDENCE_KINDS if k in by_kind)
    kwargs["created"] = min(kwargs["created"], 2**33)
    kwargs["not_after"] = kwargs["created"] + 1 + kwargs["not_after"] % 10**9


def _tidy_covered(kwargs: dict[str, Any]) -> None:
    kwargs["verdict"] = "covered" if kwargs["scanners"] else "not-covered"
    kwargs["reason"] = kwargs["reason"] or "unread"


def _tidy_model_request(kwargs: dict[str, Any]) -> None:
    if (kwargs["path"] is None) == (kwargs["repo"] is None):
        kwargs["path"], kwargs["repo"] = "./here", None


def _tidy_wheels_request(kwargs: dict[str, Any]) -> None:
    kwargs["pylock"] = None  # alone or not at all; tests/unit/fetch has it alone


def _tidy_request(kwargs: dict[str, Any]) -> None:
    taken: set[str] = set()
    for key in ("model", "adapter", "wheels", "image", "file"):
        kwargs[key] = tuple(a for a in kwargs[key] if not (a.name in taken or taken.add(a.name)))
    assume(taken)


def _tidy_one(key: str) -> Callable[[dict[str, Any]], None]:
    def tidy(kwargs: dict[str, Any]) -> None:
        assume(kwargs[key])
        kwargs[key] = kwargs[key][:1]

    return tidy


_TIDY: dict[type[Document], Callable[[dict[str, Any]], None]] = {
    LockedModel: _tidy_files,
    Model: _tidy_files,
    LockedAdapter: _tidy_files,
    Adapter: _tidy_files,
    LockedPlainFiles: _tidy_files,
    PlainFiles: _tidy_files,
    LockedImage: _tidy_image,
    Image: _tidy_image,
    AdapterRequest: _tidy_model_request,
    Serve: _tidy_serve,
    LockedWheels: _tidy_wheels,
    Wheels: _tidy_wheels,
    Lock: _tidy_artifacts,
    Manifest: _tidy_manifest,
    Covered: _tidy_covered,
    ModelRequest: _tidy_model_request,
    Request: _tidy_request,
    WheelsRequest: _tidy_wheels_request,
    Statement: _tidy_one("subject"),
    Envelope: _tidy_one("signatures"),
    FileEntry: _as_drawn,
}
