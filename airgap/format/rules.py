"""What one field of a document may hold, said by its annotation, and the check made from that.

A check takes a value and where it stands, and raises FormatError for a value that will not do.
"""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Union, get_args, get_origin

from airgap import limits
from airgap.errors import FormatError
from airgap.format.names import check_path

Checker = Callable[[Any, str], None]


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


@functools.cache
def checker(hint: Any) -> Checker:
    """Raises FormatError for a value that is not what `hint` asks for."""
    origin = get_origin(hint)
    if origin is Annotated:
        base, *rules = get_args(hint)
        return _in_turn([checker(base), *(_rule_checker(rule) for rule in rules)])
    if origin in (Union, types.UnionType):
        return _union_checker(hint)
    if origin is tuple:
        return _tuple_checker(get_args(hint)[0])
    if origin is Mapping:
        return _mapping_checker(*get_args(hint))
    if hint is int:
        return _check_int
    if hint is PurePosixPath:
        return _check_path
    return _type_checker(hint)


def _in_turn(checks: list[Checker]) -> Checker:
    if len(checks) == 1:
        return checks[0]
    first, *others = checks

    def check(value: Any, where: str) -> None:
        first(value, where)
        for other in others:
            other(value, where)

    return check


def _type_checker(hint: Any) -> Checker:
    def check(value: Any, where: str) -> None:
        if type(value) is not hint:
            raise bad(where, f"expected {_named(hint)}, found {kind_of(value)}")

    return check


def _check_int(value: Any, where: str) -> None:
    if type(value) is not int or abs(value) > limits.MAX_JSON_INT:
        raise bad(where, f"expected an integer, found {kind_of(value)}")


def _check_path(value: Any, where: str) -> None:
    if not isinstance(value, PurePosixPath):
        raise bad(where, f"expected a path, found {kind_of(value)}")
    check_path(str(value), where)


def _tuple_checker(item: Any) -> Checker:
    one = checker(item)

    def check(value: Any, where: str) -> None:
        if not isinstance(value, tuple):
            raise bad(where, f"expected a list, found {kind_of(value)}")
        for i, v in enumerate(value):
            one(v, f"{where}[{i}]")

    return check


def _mapping_checker(key_hint: Any, value_hint: Any) -> Checker:
    check_key, check_value = checker(key_hint), checker(value_hint)

    def check(value: Any, where: str) -> None:
        for k, v in value.items():
            check_key(k, f"{where}.{k}")
            check_value(v, f"{where}.{k}")

    return check


def _union_checker(hint: Any) -> Checker:
    args = get_args(hint)
    empty = type(None) in args
    options = [a for a in args if a is not type(None)]
    only = checker(options[0]) if len(options) == 1 else None

    def check(value: Any, where: str) -> None:
        if value is None and empty:
            return
        if only is not None:
            only(value, where)
        elif type(value) not in options:
            raise bad(where, f"expected one of {len(options)} kinds, found {kind_of(value)}")

    return check


def _rule_checker(rule: Any) -> Checker:
    if isinstance(rule, Text):
        return _text_checker(rule)
    if isinstance(rule, Range):
        return _range_checker(rule)
    return _choice_checker(rule)


def _text_checker(rule: Text) -> Checker:
    matches = None if rule.pattern is None else re.compile(rule.pattern, re.ASCII).fullmatch

    def check(value: Any, where: str) -> None:
        if len(value) > rule.max_chars:
            raise bad(where, f"longer than {rule.max_chars} characters")
        if matches is not None and matches(value) is None:
            raise bad(where, f"{value[:60]!r} is not {rule.meaning}")

    return check


def _range_checker(rule: Range) -> Checker:
    def check(value: Any, where: str) -> None:
        if not rule.low <= value <= rule.high:
            raise bad(where, f"{value} is not between {rule.low} and {rule.high}")

    return check


def _choice_checker(rule: Choice) -> Checker:
    def check(value: Any, where: str) -> None:
        if value not in rule.values:
            near = difflib.get_close_matches(value, rule.values, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise bad(where, f"{value[:60]!r} is not one of {', '.join(rule.values)}{hint}")

    return check


def bad(where: str, why: str) -> FormatError:
    """The error for a value that will not do."""
    return FormatError("format.value", where, why)


def kind_of(value: Any) -> str:
    """What a value is, in words for an error."""
    return _named(type(value))


_KINDS = {
    str: "text",
    int: "an integer",
    bool: "true or false",
    dict: "a table",
    list: "a list",
    type(None): "nothing",
}


def _named(hint: Any) -> str:
    return _KINDS.get(hint) or str(getattr(hint, "__name__", "a value"))
