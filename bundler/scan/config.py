"""Every JSON file of a model, every value in it: what makes a loader run or fetch something.

Keys are those that transformers, sentence-transformers, PEFT, diffusers and mlx-lm act on. A model
that needs one of them brings code of its own, and that is refused by default wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from bundler.scan import strictjson
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import finding, shown
from bundler.scan.text import hidden_in

NAME = "config"
Hit = tuple[str, str, str]

_INTERNAL = frozenset(["_attn_implementation_internal", "_experts_implementation_internal"])
_IMPLEMENTATION = re.compile(r"(attn|experts)_implementation")
# Keys whose value a loader opens: `tokenizer_file`, `adapter_path`, `cache_dir`, `repo_id`, ...
_PATH_KEY = re.compile(r"(?i)(^|_)(path|file|dir|folder|url|uri|repo|repo_id|filename)$|_or_path$")
# Written for people and overwritten by the loader before it is used; old tools left paths of the
# machine that they ran on.
_NOTE_KEYS = frozenset(["_name_or_path", "name_or_path", "special_tokens_map_file"])
_OFF_BUNDLE = re.compile(r"(?i)^(/|~|\\|[a-z]:[\\/]|[a-z][a-z0-9+.-]*://)|(^|[\\/])\.\.([\\/]|$)")
_TEMPLATE_KEYS = frozenset(["chat_template", "template"])
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.\w+)+")


class ConfigScanner:
    """Walks every JSON file of a model."""

    name = NAME

    def version(self) -> str:
        """The rules are ours; the number goes up when they change."""
        return "config-rules 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up what is JSON by content, or text under a JSON name."""
        result = ScanResult()
        for subject in artifact:
            if subject.in_tree and _is_ours(subject):
                _scan_one(subject, result)
        return result


def _is_ours(subject: Subject) -> bool:
    return subject.kind == "json" or (
        subject.kind in ("text", "empty") and subject.path.suffix.lower() == ".json"
    )


def _scan_one(subject: Subject, result: ScanResult) -> None:
    try:
        hits = sorted(set(judge(subject.path.name, strictjson.read(subject.file))))
    except strictjson.Malformed as e:
        text = f"not strict JSON: {e}"
        result.findings.append(finding(NAME, subject, "json.malformed", "high", text))
        result.unscanned.append(Unscanned(subject.path, "it is not strict JSON"))
        return
    for id, severity, message in hits:
        result.findings.append(finding(NAME, subject, id, severity, message))
    result.covered.add(subject.path)


def judge(file_name: str, document: Any) -> Iterator[Hit]:
    """(finding id, severity, message) for each value that matters. Raises Malformed if endless."""
    for place, key, value in strictjson.walk(document):
        if key:
            yield from _code(place, key, value)
        if isinstance(value, str):
            yield from _implementation(place, key, value)
            yield from _paths(place, key, value)
            yield from _template(place, key, value)
    if file_name == "modules.json":
        yield from _modules(document)


def _at(place: str) -> str:
    return shown(place.lstrip("."))


def _code(place: str, key: str, value: Any) -> Iterator[Hit]:
    if key == "auto_map" and value:
        yield "code.auto-map", "high", f"{_at(place)} names classes to import from a repository"
    elif key == "trust_remote_code" and value not in (False, None):
        yield "code.trust-remote-code", "high", f"{_at(place)} asks for code to be trusted"
    elif key in _INTERNAL and value is not None:
        yield "code.implementation", "high", f"{_at(place)} sets what only a loader may set"
    elif key == "model_file" and value:
        yield "code.model-file", "high", f"{_at(place)} names a file that mlx-lm imports"
    elif key in ("custom_pipelines", "custom_generate") and value:
        yield "code.custom-pipeline", "high", f"{_at(place)} names code to import"
    elif key == "activation_function" and _is_foreign_import(value):
        # sentence-transformers' Dense module imports this by name.
        yield "code.import", "high", f"{_at(place)} names {shown(value)} to import"


def _is_foreign_import(value: Any) -> bool:
    if not isinstance(value, str) or _IMPORT_PATH.fullmatch(value) is None:
        return False
    return not value.startswith("torch.nn.")


def _implementation(place: str, key: str, value: str) -> Iterator[Hit]:
    """`owner/kernel` as an implementation makes transformers fetch and load a kernel."""
    if "/" in value and _IMPLEMENTATION.search(f"{place} {key}"):
        yield "code.implementation", "high", f"{_at(place)} names the kernel {shown(value)} to load"


def _paths(place: str, key: str, value: str) -> Iterator[Hit]:
    if _PATH_KEY.search(key) is None:
        return
    if _OFF_BUNDLE.search(value):
        severity = "low" if key in _NOTE_KEYS else "medium"
        yield "config.off-bundle", severity, f"{_at(place)} points outside: {shown(value)}"
    elif key == "base_model_name_or_path" and value:
        # The engine is given its base model by us; with Hub access off nothing follows this name.
        message = f"{_at(place)} names {shown(value)}, not part of this artifact"
        yield "config.base-model", "low", message


def _template(place: str, key: str, value: str) -> Iterator[Hit]:
    """JSON escapes hide characters from a search of the raw text: look at the decoded string."""
    if key in _TEMPLATE_KEYS or "chat_template" in place:
        for id, severity, message in hidden_in(value, is_template=True):
            yield id, severity, f"in {_at(place)}: {message}"


def _modules(document: Any) -> Iterator[Hit]:
    """sentence-transformers imports each `type`; only its own modules are its own code."""
    entries = document if isinstance(document, list) else [document]
    for entry in entries:
        type = entry.get("type") if isinstance(entry, dict) else None
        if not isinstance(type, str) or not _is_own_module(type):
            yield "code.module-type", "high", f"modules.json names {shown(type)} to import"


def _is_own_module(type: str) -> bool:
    return type.startswith("sentence_transformers.") and _IMPORT_PATH.fullmatch(type) is not None
