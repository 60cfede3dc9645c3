"""What must not leave this host in a dump: keys, tokens, prompts, answers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from airgap.format.manifest import Manifest

LEFT_OUT = "[left out]"
_TOKENS = re.compile(
    r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]{8,}"
    r"|\b((?:sk|hf|ghp|glpat)[-_])[A-Za-z0-9_-]{8,}"
    r"|((?:api[-_]?key|token|password|secret|authorization)[\"']?\s*[:=]\s*[\"']?)[^\s\"',]{4,}"
)
# The values in which the OpenAI API carries what people write and models answer.
_SAID = re.compile(
    r"""(["'](?:content|prompt|text|input|arguments|messages)["']\s*:\s*)"""
    r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|\[.*\])"""
)


def text(said: str, secrets: Iterable[str] = ()) -> str:
    """A log without keys, and without what people and models say where it is recognised.

    `secrets` are strings that are known to be left out wherever they stand.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= 4:
            said = said.replace(secret, LEFT_OUT)
    said = _TOKENS.sub(lambda m: (m[1] or m[2] or m[3] or "") + LEFT_OUT, said)
    return _SAID.sub(lambda m: f'{m[1]}"{LEFT_OUT}"', said)


def manifest(full: Manifest) -> Manifest:
    """The manifest without the prompts of its checks; its digest is no longer the approved one."""
    if full.serve is None:
        return full
    checks = tuple(
        dataclasses.replace(c, prompt=LEFT_OUT, expect=LEFT_OUT) for c in full.serve.check
    )
    return dataclasses.replace(full, serve=dataclasses.replace(full.serve, check=checks))


def prompts(full: Manifest) -> list[str]:
    """What its checks say and expect."""
    checks = full.serve.check if full.serve else ()
    return [s for c in checks for s in (c.prompt, c.expect)]
