"""Frozen dataclasses <-> plain JSON data, strictly.

A document's shape is its dataclass: field names with `_` written as `-`, unless the field's
metadata names another key. Unknown keys are refused with the nearest known one. A value that exists
is well-formed: `Document.__post_init__` checks every field against its annotation.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from airgap.errors import FormatError
from airgap.format import canonical
from airgap.format.names import check_path
from airgap.format.rules import Checker, bad, checker, kind_of

D = TypeVar("D", bound="Document")


@dataclass(frozen=True)
class Document:
    """Base of every document and of every part of one."""

    def __post_init__(self) -> None:
        for f in _fields(type(self)).values():
            value = getattr(self, f.name)
            if value is not None or not f.optional:
                f.check(value, f.key)
        self.validate()

    def validate(self) -> None:
        """Invariants that one field alone cannot state; raises FormatError."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data. A field that is None is left out, so later fields change no bytes."""
        out: dict[str, Any] = {}
        for f in _fields(type(self)).values():
            value = getattr(self, f.name)
            if value is not None:
                out[f.key] = value if f.plain else _plain(value)
        return out

    def to_bytes(self) -> bytes:
        """The canonical bytes; their SHA-256 is the document's name."""
        return canonical.encode(self.to_json())

    @classmethod
    def from_json(cls: type[D], data: Any, where: str = "") -> D:
        """Build from plain JSON data; raises FormatError naming the place."""
        return _from_dict(cls, data, where)

    @classmethod
    def from_bytes(cls: type[D], data: bytes) -> D:
        """Decode bytes that must be canonical, and only those."""
        written = canonical.decode_canonical(data)
        document = cls.from_json(written)
        # `written` is canonical and of checked types: equal data are equal bytes.
        if document.to_json() != written:
            raise FormatError(
                "format.not-canonical", "", "an optional key is written in a second way"
            )
        return document


# What a lock of 10,000 files asks 70,000 times is read from the annotations once.
_Builder = Callable[[Any, str], Any]


@dataclass(frozen=True)
class _Field:
    name: str
    key: str
    required: bool
    # Whether None will do, and whether the plain value is taken as it is.
    optional: bool
    plain: bool
    check: Checker
    build: _Builder


_FIELDS: dict[type, dict[str, _Field]] = {}


def _fields(cls: type) -> dict[str, _Field]:
    """By key, in order."""
    if cls not in _FIELDS:
        _FIELDS[cls] = {f.key: f for f in _read_fields(cls)}
    return _FIELDS[cls]


def _read_fields(cls: type) -> Iterator[_Field]:
    hints = typing.get_type_hints(cls, include_extras=True)
    for f in dataclasses.fields(cls):
        missing = dataclasses.MISSING
        required = f.default is missing and f.default_factory is missing
        key = f.metadata.get("key", f.name.replace("_", "-"))
        hint = hints[f.name]
        optional = get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
        plain = _is_plain(hint)
        yield _Field(f.name, key, required, optional, plain, checker(hint), _builder(hint))


def _is_plain(hint: Any) -> bool:
    """Whether its builder would hand a value of that hint on as it is."""
    if get_origin(hint) is Annotated:
        return _is_plain(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        return len(options) == 1 and _is_plain(options[0])
    return hint in (str, int, bool)


def key(name: str, **kwargs: Any) -> Any:
    """A dataclass field whose JSON key is `name` as it stands (for foreign document types)."""
    return dataclasses.field(metadata={"key": name}, **kwargs)


def _from_dict(cls: type[D], data: Any, where: str) -> D:
    if not isinstance(data, dict):
        raise bad(where, f"expected a table, found {kind_of(data)}")
    fields = _fields(cls)
    for k in data:
        if k not in fields:
            raise _unknown(k, fields, where)
    kwargs: dict[str, Any] = {}
    for k, f in fields.items():
        if k in data:
            kwargs[f.name] = data[k] if f.plain else f.build(data[k], _join(where, k))
        elif f.required:
            raise FormatError("format.missing-key", _join(where, k), "this key is required")
    try:
        return cls(**kwargs)
    except FormatError as e:
        if where and not e.where.startswith(where):
            raise FormatError(e.id, _join(where, e.where), e.why) from e
        raise


def _unknown(k: Any, fields: Mapping[str, _Field], where: str) -> FormatError:
    near = difflib.get_close_matches(str(k), fields, n=1, cutoff=0.6)
    hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(fields)}"
    return FormatError(
        "format.unknown-key", _join(where, str(k)[:80]), f"this key is unknown{hint}"
    )


@functools.cache
def _builder(hint: Any) -> _Builder:
    """Turns plain data into the value that `hint` asks for. Leaf checks are the checker's."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _builder(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return _union_builder(hint)
    if origin is tuple:
        return _tuple_builder(get_args(hint)[0])
    if origin is Mapping:
        return _mapping_builder(get_args(hint)[1])
    if hint is PurePosixPath:
        return _build_path
    if isinstance(hint, type) and issubclass(hint, Document):
        return functools.partial(_from_dict, hint)
    return _as_it_is


def _as_it_is(data: Any, _where: str) -> Any:
    return data


def _tuple_builder(item: Any) -> _Builder:
    one = _builder(item)

    def build(data: Any, where: str) -> Any:
        if not isinstance(data, list):
            raise bad(where, f"expected a list, found {kind_of(data)}")
        return tuple([one(v, f"{where}[{i}]") for i, v in enumerate(data)])

    return build


def _mapping_builder(value_hint: Any) -> _Builder:
    one = _builder(value_hint)

    def build(data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise bad(where, f"expected a table, found {kind_of(data)}")
        return types.MappingProxyType({k: one(v, _join(where, k)) for k, v in data.items()})

    return build


def _build_path(data: Any, where: str) -> PurePosixPath:
    if not isinstance(data, str):
        raise bad(where, f"expected a path, found {kind_of(data)}")
    check_path(data, where)
    return PurePosixPath(data)


def _union_builder(hint: Any) -> _Builder:
    options = [a for a in get_args(hint) if a is not type(None)]
    if len(options) == 1:
        return _builder(options[0])
    by_kind = union_by_kind(hint)

    def build(data: Any, where: str) -> Any:
        if not isinstance(data, dict):
            raise bad(where, f"expected a table, found {kind_of(data)}")
        kind = data.get("kind")
        if not isinstance(kind, str) or kind not in by_kind:
            why = f"'{str(kind)[:40]}' is not one of {', '.join(sorted(by_kind))}"
            raise bad(_join(where, "kind"), why)
        return _from_dict(by_kind[kind], data, where)

    return build


def union_by_kind(hint: Any) -> dict[str, type[Document]]:
    """The members of a tagged union by the value of their `kind` field."""
    return {a.kind: a for a in get_args(hint)}


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_json()
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, PurePosixPath):
        return str(value)
    return value


def _join(where: str, k: str) -> str:
    return f"{where}.{k}" if where else k
