"""Reading `manifests/NAME.toml`: the request as people write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airgap.format.request import Request, TargetRequest
from bundler import toml_document


def read(path: Path) -> Request:
    """The request in the TOML file `path`.

    A target that is measured is read here, so that every request has a concrete one. Raises
    UsageError `request.invalid` with file, line and key, or `request.unreadable`; `facts.*` when
    the facts cannot be read or do not fit.
    """

    def prepare(data: dict[str, Any]) -> dict[str, Any]:
        return _target(_engine(_dates(data)), path.parent)

    return toml_document.read(path, Request, "request", prepare)


def _engine(data: dict[str, Any]) -> dict[str, Any]:
    """A name that no engine has is a slip, to be named with its line."""
    serve = data.get("serve")
    name = serve.get("engine") if isinstance(serve, dict) else None
    if isinstance(name, str):
        from airgap.engines import registry as engines  # a fetch of files alone needs none

        engines.named(name)
    return data


def _target(data: dict[str, Any], base: Path) -> dict[str, Any]:
    written = data.get("target")
    if not isinstance(written, dict) or "facts" not in written:
        return data
    from bundler import facts

    asked = TargetRequest.from_json(written, "target")
    found = facts.read(base / Path(asked.facts or "").expanduser())
    return {**data, "target": facts.target(found, asked).to_json()}


def _dates(data: dict[str, Any]) -> dict[str, Any]:
    """TOML's own dates where a request may have one: `wheels.newest` and `waive.until`."""
    out = dict(data)
    _replace(out, "wheels", "newest", toml_document.day)
    _replace(out, "waive", "until", toml_document.last_second)
    return out


def _replace(data: dict[str, Any], table: str, key: str, change: Any) -> None:
    rows = data.get(table)
    if not isinstance(rows, list):
        return
    data[table] = [
        {**row, key: change(row[key])} if isinstance(row, dict) and key in row else row
        for row in rows
    ]
