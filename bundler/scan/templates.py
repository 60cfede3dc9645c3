"""Chat templates wherever a model keeps them: found, hashed, judged, and kept for people to read.

`tokenizer_config.json` and processor configurations hold one under the key `chat_template`, as a
text or a list of named ones; `chat_template.jinja`, `chat_template.json` and the folder
`additional_chat_templates` hold one a file; a GGUF file holds them among its keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from airgap.format.evidence import MAX_TEMPLATE_CHARS, ChatTemplate
from bundler.scan import bounds, gguf, strictjson, template_loops, template_rules, template_triggers
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import Fault, finding, shown
from bundler.scan.template_rules import Hit
from bundler.scan.template_tree import parse

NAME = "template"
_SUFFIXES = (".jinja", ".jinja2", ".j2")
_KEY = "chat_template"


class TemplateScanner:
    """Parses chat templates with Jinja's own parser; none is ever rendered."""

    name = NAME

    def version(self) -> str:
        """The rules are ours; the number goes up when they change."""
        return "template-rules 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up every file that holds a template."""
        result = ScanResult()
        for subject in artifact:
            if subject.in_tree and _may_hold(subject):
                _scan_one(subject, result)
        _compare(artifact, result)
        return result


def _may_hold(subject: Subject) -> bool:
    return subject.kind in ("json", "gguf") or _is_template_file(subject)


def _is_template_file(subject: Subject) -> bool:
    return subject.path.suffix.lower() in _SUFFIXES


def _scan_one(subject: Subject, result: ScanResult) -> None:
    found = 0
    try:
        for place, text in _places(subject):
            found += 1
            if len(result.templates) >= bounds.MAX_TEMPLATES or len(text) > MAX_TEMPLATE_CHARS:
                raise Fault("template.size", f"{shown(place)}: too long, or one of too many")
            _take(subject, place, text, result)
    except Fault as e:
        result.findings.append(finding(NAME, subject, e.id, "high", e.message))
        result.unscanned.append(Unscanned(subject.path, "a chat template in it cannot be read"))
        return
    except strictjson.Malformed:
        # The walk over all JSON reports that by itself.
        return
    if found:
        result.covered.add(subject.path)


def _take(subject: Subject, place: str, text: str, result: ScanResult) -> None:
    for id, severity, message in _judge(text):
        message = f"in {shown(place)}: {message}" if place else message
        result.findings.append(finding(NAME, subject, id, severity, message))
    result.templates.append(
        ChatTemplate(
            artifact=subject.artifact,
            path=subject.path,
            place=shown(place)[1:-1] if place else "",
            sha256=hashlib.sha256(text.encode("utf-8")).hexdigest(),
            text=text,
        )
    )


def _judge(text: str) -> Iterator[Hit]:
    tree = parse(text)
    hits = [*template_rules.judge(tree), *template_loops.judge(tree)]
    yield from sorted({*hits, *template_triggers.judge(tree)})


def _places(subject: Subject) -> Iterator[tuple[str, str]]:
    """(place, text) of each template in the file. Raises Fault, Malformed."""
    if subject.kind == "gguf":
        yield from _of_gguf(subject)
    elif _is_template_file(subject):
        yield "", _sound(subject.file.read_bytes()[: 4 * MAX_TEMPLATE_CHARS + 1])
    else:
        yield from _of_json(subject)


def _of_gguf(subject: Subject) -> Iterator[tuple[str, str]]:
    try:
        contents = gguf.check(subject.file)
    except Fault:
        # The scanner of GGUF files reports that by itself.
        return
    yield from sorted(contents.templates.items())


def _of_json(subject: Subject) -> Iterator[tuple[str, str]]:
    for place, key, value in strictjson.walk(strictjson.read(subject.file)):
        # Items of a list bear the list's key: the list itself was taken.
        if key == _KEY and not place.endswith("[]") and value is not None:
            yield from _named(place.lstrip("."), value)


def _named(place: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, _text(value)
        return
    pairs: list[Any] = []
    if isinstance(value, dict):
        pairs = list(value.items())
    elif isinstance(value, list):
        pairs = [
            (v.get("name"), v.get("template")) if isinstance(v, dict) else (None, None)
            for v in value
        ]
    if not pairs or not all(isinstance(k, str) and isinstance(v, str) for k, v in pairs):
        raise Fault("template.shape", f"{shown(place)} is neither a text nor a list of named ones")
    for name, text in pairs:
        yield f"{place}[{name}]", _text(text)


def _sound(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as e:
        raise Fault("template.malformed", "it is not UTF-8") from e


def _text(text: str) -> str:
    """JSON can write half a character; no engine could be given that."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise Fault("template.malformed", "it holds half a character") from e
    return text


def _compare(artifact: Sequence[Subject], result: ScanResult) -> None:
    """Two different defaults: tools differ in which one they take; the engine gets one of them."""
    subjects = {s.path: s for s in artifact}
    defaults = [
        t
        for t in result.templates
        if len(t.path.parts) == 1 and (t.place in ("", _KEY) or t.place.endswith("[default]"))
    ]
    for other in defaults[1:]:
        if other.sha256 != defaults[0].sha256:
            text = f"its chat template is another one than in {shown(defaults[0].path)}"
            subject = subjects[other.path]
            result.findings.append(finding(NAME, subject, "template.differs", "low", text))
