"""Laws that hold for every document: one document, one byte form, and nothing slips past."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airgap.errors import FormatError
from airgap.format import canonical
from airgap.format.codec import Document
from bundler.format_schemas import CANONICAL, WRITTEN_BY_PEOPLE, make_schema
from tests.property.documents import DOCUMENTS, document

THOROUGH = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)
ALL = pytest.mark.parametrize("cls", DOCUMENTS, ids=lambda c: c.__name__)
VALIDATORS = {
    cls: jsonschema.Draft202012Validator(make_schema(name, cls, lenient=name in WRITTEN_BY_PEOPLE))
    for name, cls in (WRITTEN_BY_PEOPLE | CANONICAL).items()
}


@ALL
@THOROUGH
@given(data=st.data())
def test_decoding_what_was_encoded_gives_the_same_and_the_schema_accepts_it(
    cls: type[Document], data: st.DataObject
) -> None:
    drawn = data.draw(document(cls))
    encoded = drawn.to_bytes()
    decoded = cls.from_bytes(encoded)
    assert decoded == drawn
    assert decoded.to_bytes() == encoded
    VALIDATORS[cls].validate(drawn.to_json())


@ALL
@THOROUGH
@given(data=st.data())
def test_a_change_of_one_place_is_refused_or_is_another_document(
    cls: type[Document], data: st.DataObject
) -> None:
    drawn = data.draw(document(cls))
    plain = drawn.to_json()
    changed = data.draw(mutated(plain))
    if changed == plain and canonical.encode(changed) == canonical.encode(plain):
        return
    try:
        other = cls.from_bytes(canonical.encode(changed))
    except FormatError:
        return
    assert other != drawn
    # What the decoder takes, the schema takes.
    VALIDATORS[cls].validate(changed)


@ALL
@THOROUGH
@given(data=st.data())
def test_a_document_has_one_byte_form(cls: type[Document], data: st.DataObject) -> None:
    encoded = data.draw(document(cls)).to_bytes()
    at = data.draw(st.integers(0, len(encoded)))
    space = data.draw(st.sampled_from([b" ", b"\n", b"\t"]))
    other = encoded[:at] + space + encoded[at:]
    try:
        decoded = cls.from_bytes(other)
    except FormatError:
        return
    assert decoded.to_bytes() == other  # the space fell into a text, so it is another document


@ALL
@THOROUGH
@given(data=st.data())
def test_the_schema_refuses_unknown_and_missing_keys(
    cls: type[Document], data: st.DataObject
) -> None:
    plain = data.draw(document(cls)).to_json()
    assert not VALIDATORS[cls].is_valid({**plain, "unheard-of": 1})
    for key in VALIDATORS[cls].schema["required"]:
        assert not VALIDATORS[cls].is_valid({k: v for k, v in plain.items() if k != key})
        with pytest.raises(FormatError):
            cls.from_bytes(canonical.encode({k: v for k, v in plain.items() if k != key}))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_decoder_fail_in_another_way(data: bytes) -> None:
    try:
        value = canonical.decode_canonical(data)
    except FormatError:
        return
    assert canonical.encode(value) == data


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}\n',
        '{"a":1.0}\n',
        '{"a":1e999}\n',
        '{"a":NaN}\n',
        '{"a":-Infinity}\n',
        '{"a":9007199254740992}\n',
        '{"a":' + "9" * 5000 + "}\n",
        '{"a":"\\ud800"}\n',
        '{"a":["\\udc00"]}\n',
        '{"\\ud800":1}\n',
        '\ufeff{"a":1}\n',
        '{"a":1}',
        '{"a":1}\n\n',
        '{"a":1} {"b":2}\n',
        '{"a": 1}\n',
        '{"b":1,"a":2}\n',
        '{"a":"\\u0041"}\n',
        "[" * 100_000,
        '{"a":' * 100_000,
        "",
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        canonical.decode_canonical(text.encode("utf-8"))


def mutated(plain: Any) -> st.SearchStrategy[Any]:
    """`plain` with one place changed: a key dropped, added or renamed, a value replaced."""
    places = list(_places(plain, ()))
    return st.builds(
        _mutate,
        st.just(plain),
        st.sampled_from(places),
        st.sampled_from(["drop", "rename", "replace"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(-1, 2**53),
            st.text(max_size=5),
            st.just([]),
            st.just({}),
        ),
    )


def _places(value: Any, at: tuple[str | int, ...]) -> Any:
    if at:
        yield at
    if isinstance(value, dict):
        for k, v in value.items():
            yield from _places(v, (*at, k))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from _places(v, (*at, i))


def _mutate(plain: Any, place: tuple[str | int, ...], how: str, new: Any) -> Any:
    out = copy.deepcopy(plain)
    parent = out
    for step in place[:-1]:
        parent = parent[step]
    last = place[-1]
    if how == "replace":
        parent[last] = new
    elif how == "rename" and isinstance(parent, dict):
        parent[f"{last}x"] = parent.pop(last)
    else:
        del parent[last]
    return out
