"""Which text of a model is its chat template: a program that the engine runs on every request.

As transformers 5 chooses it: the file `chat_template.jinja`, else `chat_template.json`, else the
key `chat_template` of `tokenizer_config.json`, a text or a list of named ones, of which the one
called `default` is used. Both sides ask here, so the text that officers read is the text that the
engine is started with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airgap.errors import FormatError

# Files that may hold it, the first one that is there wins.
SOURCES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")


def find(files: Mapping[str, bytes]) -> str | None:
    """The template's text, or None when the model has none. `files`: path -> bytes of those of
    `SOURCES` that the model has. Raises FormatError `format.chat-template`."""
    for name in SOURCES:
        if name not in files:
            continue
        try:
            text = files[name].decode("utf-8")
            found = text if name.endswith(".jinja") else _of_json(json.loads(text))
        except (ValueError, RecursionError) as e:
            raise FormatError("format.chat-template", name, f"it cannot be read: {e}"[:300]) from e
        if found is not None:
            return found
    return None


def _of_json(document: Any) -> str | None:
    value = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        named = [t for t in value if isinstance(t, dict) and t.get("name") == "default"]
        if len(named) == 1 and isinstance(named[0].get("template"), str):
            return str(named[0]["template"])
    return None
