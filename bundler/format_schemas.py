"""JSON Schemas (draft 2020-12) of the documents, made from the dataclasses that define them.

`python -m bundler.format_schemas` writes docs/schemas/; a test holds them current. A schema says
the shape of one document; what only the whole of it can show (sorted, unique, safe paths) is in
docs/bundle-format.md and checked by the decoder.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Union, get_args, get_origin

from airgap import fsio, limits
from airgap.format.codec import Document
from airgap.format.evidence import Coverage, Findings
from airgap.format.facts import Facts
from airgap.format.lock import Lock
from airgap.format.manifest import Manifest
from airgap.format.policy import Policy
from airgap.format.receipt import Receipt
from airgap.format.request import Request, TargetRequest
from airgap.format.rules import Choice, Range, Text
from airgap.format.statement import Envelope, Statement
from airgap.format.types import Target

Schema = dict[str, Any]

# What people write as TOML may leave out every key that has a default; canonical JSON may not.
WRITTEN_BY_PEOPLE: dict[str, type[Document]] = {"policy": Policy, "request": Request}
CANONICAL: dict[str, type[Document]] = {
    "coverage": Coverage,
    "envelope": Envelope,
    "facts": Facts,
    "findings": Findings,
    "lock": Lock,
    "manifest": Manifest,
    "receipt": Receipt,
    "statement": Statement,
}
# What people write in the place of a part that a document always has in full.
_WRITTEN_AS: dict[type[Document], type[Document]] = {Target: TargetRequest}
_ID = "urn:sealift:schema:{name}:1"
_PATH = "a relative POSIX path, safe on every file system (docs/bundle-format.md)"


def all_schemas() -> dict[str, bytes]:
    """File name -> bytes of every schema."""
    out = {}
    for name, document in (WRITTEN_BY_PEOPLE | CANONICAL).items():
        schema = make_schema(name, document, lenient=name in WRITTEN_BY_PEOPLE)
        text = json.dumps(schema, indent=2, sort_keys=True)
        out[f"{name}.schema.json"] = text.encode("ascii") + b"\n"
    return out


def write_all(folder: Path) -> None:
    """Write every schema into `folder`."""
    for name, data in all_schemas().items():
        fsio.write(folder / name, data)


def make_schema(name: str, document: type[Document], *, lenient: bool) -> Schema:
    """The schema of one document. `lenient`: keys with a default may be left out."""
    builder = _Builder(lenient)
    body = builder.table(document)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": _ID.format(name=name),
        "title": f"Sealift {name}",
        **body,
        "$defs": builder.definitions,
    }


@dataclasses.dataclass
class _Builder:
    """Collects the tables that a document is built from as `$defs`."""

    lenient: bool
    definitions: dict[str, Schema] = dataclasses.field(default_factory=dict)

    def table(self, document: type[Document]) -> Schema:
        hints = typing.get_type_hints(document, include_extras=True)
        properties: dict[str, Schema] = {}
        required: list[str] = []
        for f in dataclasses.fields(document):
            key = f.metadata.get("key", f.name.replace("_", "-"))
            properties[key] = {**self.value(hints[f.name]), **_default(f)}
            if self._required(f):
                required.append(key)
        return {
            "type": "object",
            "description": inspect.cleandoc(document.__doc__ or ""),
            "additionalProperties": False,
            "properties": properties,
            "required": required,
        }

    def _required(self, f: dataclasses.Field[Any]) -> bool:
        if f.default is dataclasses.MISSING:
            return True
        return not self.lenient and f.default is not None

    def value(self, hint: Any) -> Schema:
        origin = get_origin(hint)
        if origin is Annotated:
            base, *rules = get_args(hint)
            out = self.value(base)
            for rule in rules:
                out.update(_rule(rule))
            return out
        if origin in (Union, types.UnionType):
            options = [a for a in get_args(hint) if a is not type(None)]
            shapes = [self.value(o) for o in options]
            return shapes[0] if len(shapes) == 1 else {"oneOf": shapes}
        if origin is tuple:
            return {"type": "array", "items": self.value(get_args(hint)[0])}
        if origin is Mapping:
            return {"type": "object", "additionalProperties": self.value(get_args(hint)[1])}
        if isinstance(hint, type) and issubclass(hint, Document):
            return self._reference(hint)
        return dict(_SIMPLE[hint])

    def _reference(self, document: type[Document]) -> Schema:
        if self.lenient:
            document = _WRITTEN_AS.get(document, document)
        name = document.__name__
        if name not in self.definitions:
            self.definitions[name] = {}
            self.definitions[name] = self.table(document)
        return {"$ref": f"#/$defs/{name}"}


_SIMPLE: dict[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    PurePosixPath: {
        "type": "string",
        "minLength": 1,
        "maxLength": limits.MAX_PATH_BYTES,
        "pattern": r"^[^/\\\x00-\x1f][^\\\x00-\x1f]*$(?!\n)",
        "description": _PATH,
    },
}


def _rule(rule: Any) -> Schema:
    if isinstance(rule, Text):
        out: Schema = {"maxLength": rule.max_chars}
        if rule.pattern is not None:
            # The whole string; `$` alone would allow a final newline in some engines.
            out |= {"pattern": f"^(?:{rule.pattern})$(?!\\n)", "description": rule.meaning}
        return out
    if isinstance(rule, Range):
        return {"minimum": rule.low, "maximum": rule.high}
    if isinstance(rule, Choice):
        return {"enum": list(rule.values)}
    raise TypeError(f"no schema for the rule {rule!r}")


def _default(f: dataclasses.Field[Any]) -> Schema:
    if f.default is dataclasses.MISSING or f.default is None:
        return {}
    value = list(f.default) if isinstance(f.default, tuple) else f.default
    return {"default": value}


if __name__ == "__main__":
    write_all(Path("docs/schemas"))
