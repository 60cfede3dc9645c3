"""A policy as people write it (TOML) -> the canonical JSON that a host installs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airgap.format.policy import Policy
from bundler import toml_document


def read(path: Path) -> Policy:
    """The policy in the TOML file `path`; keys left out are as strict as the built-in policy.

    Raises UsageError `policy.invalid` with file, line and key, or `policy.unreadable`.
    """
    return toml_document.read(path, Policy, "policy", _as_it_is)


def compile_policy(path: Path) -> bytes:
    """Canonical bytes of the policy in `path`, ready for `airgap policy install`."""
    return read(path).to_bytes()


def _as_it_is(data: dict[str, Any]) -> dict[str, Any]:
    return data
