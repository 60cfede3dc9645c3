"""Frozen dataclasses <-> plain JSON data, strictly.

A document's shape is its dataclass: field names with `_` written as `-`, unless the field's
metadata names another key. Unknown keys are refused with the nearest known one. A value that exists
is well-formed: `Document.__post_init__` checks every field against its annotation.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from airgap import limits
from airgap.errors import FormatError
from airgap.format import canonical
from airgap.format.names import check_path


@dataclass(frozen=True)
class Text:
    """A string that matches `pattern` as a whole and has at most `max_chars` characters."""

    pattern: str | None = None
    max_chars: int = limits.MAX_LINE_CHARS
    meaning: str = "text"


@dataclass(frozen=True)
class Range:
    """An integer from `low` to `high`, both included."""

    low: int
    high: int = limits.MAX_JSON_INT


@dataclass(frozen=True)
class Choice:
    """A string that is one of `values`."""

    values: tuple[str, ...]


D = TypeVar("D", bound="Document")


@dataclass(frozen=True)
class Document:
    """Base of every document and of every part of one."""

    def __post_init__(self) -> None:
        for f in _fields(type(self)):
            value = getattr(self, f.name)
            if value is not None or not f.optional:
                _check(f.hint, value, f.key)
        self.validate()

    def validate(self) -> None:
        """Invariants that one field alone cannot state; raises FormatError."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON data. A field that is None is left out, so later fields change no bytes."""
        out: dict[str, Any] = {}
        for f in _fields(type(self)):
            value = getattr(self, f.name)
            if value is not None:
                out[f.key] = _plain(value)
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
        document = cls.from_json(canonical.decode_canonical(data))
        if document.to_bytes() != data:
            raise FormatError(
                "format.not-canonical", "", "an optional key is written in a second way"
            )
        return document


@dataclass(frozen=True)
class _Field:
    name: str
    key: str
    hint: Any
    required: bool
    # What a lock of 10,000 files asks 70,000 times: whether None will do, and whether the plain
    # value is taken as it is.
    optional: bool
    plain: bool


_FIELDS: dict[type, tuple[_Field, ...]] = {}


def _fields(cls: type) -> tuple[_Field, ...]:
    if cls not in _FIELDS:
        _FIELDS[cls] = _read_fields(cls)
    return _FIELDS[cls]


def _read_fields(cls: type) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    out = []
    for f in dataclasses.fields(cls):
        missing = dataclasses.MISSING
        required = f.default is missing and f.default_factory is missing
        key = f.metadata.get("key", f.name.replace("_", "-"))
        hint = hints[f.name]
        optional = get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)
        out.append(_Field(f.name, key, hint, required, optional, _is_plain(hint)))
    return tuple(out)


def _is_plain(hint: Any) -> bool:
    """Whether `_build` would hand a value of that hint on as it is."""
    if get_origin(hint) is Annotated:
        return _is_plain(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        options = [a for a in get_args(hint) if a is not type(None)]
        return len(options) == 1 and _is_plain(options[0])
    return hint in (str, int, bool)


def key(name: str, **kwargs: Any) -> Any:
    """A dataclass field whose JSON key is `name` as it stands (for foreign document types)."""
    return dataclasses.field(metadata={"key": name}, **kwargs)


def _bad(where: str, why: str) -> FormatError:
    return FormatError("format.value", where, why)


def _from_dict(cls: type[D], data: Any, where: str) -> D:
    if not isinstance(data, dict):
        raise _bad(where, f"expected a table, found {_kind(data)}")
    fields = {f.key: f for f in _fields(cls)}
    for k in data:
        if k not in fields:
            near = difflib.get_close_matches(str(k), fields, n=1, cutoff=0.6)
            hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(fields)}"
            raise FormatError(
                "format.unknown-key", _join(where, str(k)[:80]), f"this key is unknown{hint}"
            )
    kwargs: dict[str, Any] = {}
    for k, f in fields.items():
        if k in data:
            kwargs[f.name] = data[k] if f.plain else _build(f.hint, data[k], _join(where, k))
        elif f.required:
            raise FormatError("format.missing-key", _join(where, k), "this key is required")
    try:
        return cls(**kwargs)
    except FormatError as e:
        if where and not e.where.startswith(where):
            raise FormatError(e.id, _join(where, e.where), e.why) from e
        raise


def _build(hint: Any, data: Any, where: str) -> Any:
    """Turn plain data into the value that `hint` asks for. Leaf checks happen in `_check`."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _build(get_args(hint)[0], data, where)
    if origin in (Union, types.UnionType):
        return _build_union(hint, data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise _bad(where, f"expected a list, found {_kind(data)}")
        item = get_args(hint)[0]
        return tuple(_build(item, v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin is Mapping:
        if not isinstance(data, dict):
            raise _bad(where, f"expected a table, found {_kind(data)}")
        value_hint = get_args(hint)[1]
        built = {k: _build(value_hint, v, _join(where, k)) for k, v in data.items()}
        return types.MappingProxyType(built)
    if hint is PurePosixPath:
        if not isinstance(data, str):
            raise _bad(where, f"expected a path, found {_kind(data)}")
        check_path(data, where)
        return PurePosixPath(data)
    if isinstance(hint, type) and issubclass(hint, Document):
        return _from_dict(hint, data, where)
    return data


def _build_union(hint: Any, data: Any, where: str) -> Any:
    options = [a for a in get_args(hint) if a is not type(None)]
    if len(options) == 1:
        return _build(options[0], data, where)
    if not isinstance(data, dict):
        raise _bad(where, f"expected a table, found {_kind(data)}")
    by_kind = union_by_kind(hint)
    kind = data.get("kind")
    if not isinstance(kind, str) or kind not in by_kind:
        raise _bad(
            _join(where, "kind"), f"'{str(kind)[:40]}' is not one of {', '.join(sorted(by_kind))}"
        )
    return _from_dict(by_kind[kind], data, where)


def union_by_kind(hint: Any) -> dict[str, type[Document]]:
    """The members of a tagged union by the value of their `kind` field."""
    return {a.kind: a for a in get_args(hint)}


def _check(hint: Any, value: Any, where: str) -> None:
    origin = get_origin(hint)
    if origin is Annotated:
        base, *rules = get_args(hint)
        _check(base, value, where)
        for rule in rules:
            _check_rule(rule, value, where)
    elif origin in (Union, types.UnionType):
        _check_union(hint, value, where)
    elif origin is tuple:
        if not isinstance(value, tuple):
            raise _bad(where, f"expected a list, found {_kind(value)}")
        item = get_args(hint)[0]
        for i, v in enumerate(value):
            _check(item, v, f"{where}[{i}]")
    elif origin is Mapping:
        for k, v in value.items():
            _check(get_args(hint)[0], k, f"{where}.{k}")
            _check(get_args(hint)[1], v, f"{where}.{k}")
    elif hint is int:
        if type(value) is not int or abs(value) > limits.MAX_JSON_INT:
            raise _bad(where, f"expected an integer, found {_kind(value)}")
    elif hint is PurePosixPath:
        if not isinstance(value, PurePosixPath):
            raise _bad(where, f"expected a path, found {_kind(value)}")
        check_path(str(value), where)
    elif type(value) is not hint:
        raise _bad(where, f"expected {_kind_of(hint)}, found {_kind(value)}")


def _check_union(hint: Any, value: Any, where: str) -> None:
    args = get_args(hint)
    if value is None and type(None) in args:
        return
    options = [a for a in args if a is not type(None)]
    if len(options) == 1:
        _check(options[0], value, where)
    elif type(value) not in options:
        raise _bad(where, f"expected one of {len(options)} kinds, found {_kind(value)}")


def _check_rule(rule: Any, value: Any, where: str) -> None:
    if isinstance(rule, Text):
        if len(value) > rule.max_chars:
            raise _bad(where, f"longer than {rule.max_chars} characters")
        if rule.pattern is not None and re.fullmatch(rule.pattern, value, re.ASCII) is None:
            raise _bad(where, f"{value[:60]!r} is not {rule.meaning}")
    elif isinstance(rule, Range):
        if not rule.low <= value <= rule.high:
            raise _bad(where, f"{value} is not between {rule.low} and {rule.high}")
    elif isinstance(rule, Choice) and value not in rule.values:
        near = difflib.get_close_matches(value, rule.values, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise _bad(where, f"{value[:60]!r} is not one of {', '.join(rule.values)}{hint}")


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


def _kind(value: Any) -> str:
    return _kind_of(type(value))


_KINDS = {
    str: "text",
    int: "an integer",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    type(None): "nothing",
}


def _kind_of(hint: Any) -> str:
    return _KINDS.get(hint) or str(getattr(hint, "__name__", "a value"))
