"""Whether the files of a tokenizer agree: which id means which token is what a model learned.

A remapped vocabulary makes a sound model say other things than it was tested to say, and no weight
changes. So: a token has one id and an id one token, in each file and across files; ids fit the
model; special tokens are the same everywhere and really are special.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from bundler.scan import sentencepiece, strictjson
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import Fault, finding, shown
from bundler.scan.template_rules import Hit

NAME = "tokenizer"
_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
_READ = (
    *("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "config.json", "generation_config.json"),
)


@dataclass
class _Known:
    """What one folder's files say: ids by token, the special ones, by role."""

    ids: dict[str, int] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)
    special: set[str] = field(default_factory=set)


class TokenizerScanner:
    """Holds a folder's tokenizer files against each other and against the configuration."""

    name = NAME

    def version(self) -> str:
        """The rules are ours; the number goes up when they change."""
        return "tokenizer-rules 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up the tokenizer files of every folder of a model or adapter."""
        result = ScanResult()
        folders: dict[PurePosixPath, dict[str, Subject]] = {}
        for subject in artifact:
            if subject.artifact_kind in ("model", "adapter"):
                if subject.path.name in _READ:
                    folders.setdefault(subject.path.parent, {})[subject.path.name] = subject
                if subject.kind == "sentencepiece":
                    _sentencepiece(subject, result)
        for files in folders.values():
            _folder(files, result)
        return result


def _sentencepiece(subject: Subject, result: ScanResult) -> None:
    try:
        found = sentencepiece.pieces(subject.file)
        if len(set(found)) != len(found):
            raise Fault("tokenizer.not-bijective", "a piece stands there twice")
        result.covered.add(subject.path)
    except Fault as e:
        result.findings.append(finding(NAME, subject, e.id, "high", e.message))
        result.unscanned.append(Unscanned(subject.path, "it is not a sound tokenizer model"))


def _folder(files: Mapping[str, Subject], result: ScanResult) -> None:
    documents = {name: _read(subject) for name, subject in files.items()}
    known = _Known()
    for name, judge in _JUDGES:
        document = documents.get(name)
        if not isinstance(document, dict):
            continue
        for id, severity, message in judge(document, known):
            result.findings.append(finding(NAME, files[name], id, severity, message))
        result.covered.add(files[name].path)
    _roles(files, documents, known, result)


def _read(subject: Subject) -> Any:
    """None for JSON that is not strict: the walk over all JSON reports that by itself."""
    try:
        return strictjson.read(subject.file)
    except strictjson.Malformed:
        return None


def _tokenizer(document: dict[str, Any], known: _Known) -> Iterator[Hit]:
    model = document.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocab, dict):
        known.ids = {t: i for t, i in vocab.items() if type(i) is int}
        if len(known.ids) != len(vocab):
            yield "tokenizer.malformed", "medium", "a token's id is no integer"
    elif isinstance(vocab, list):
        # Unigram: [piece, score], the id is the place.
        names = [v[0] for v in vocab if isinstance(v, list) and v and isinstance(v[0], str)]
        known.ids = {t: i for i, t in enumerate(names)}
        if len(known.ids) != len(vocab):
            yield "tokenizer.not-bijective", "medium", "a piece stands in the vocabulary twice"
    yield from _bijection(known.ids)
    for entry in document.get("added_tokens") or []:
        if isinstance(entry, dict) and isinstance(entry.get("content"), str):
            if entry.get("special"):
                known.special.add(entry["content"])
            yield from _add(entry["content"], entry.get("id"), known)
    yield from _bijection({**known.ids, **known.added})


def _bijection(ids: Mapping[str, int]) -> Iterator[Hit]:
    owner: dict[int, str] = {}
    for token, id in ids.items():
        if owner.setdefault(id, token) != token:
            message = f"id {id} means {shown(owner[id])} and {shown(token)}"
            yield "tokenizer.not-bijective", "medium", message
            return
        if id < 0:
            yield "tokenizer.malformed", "medium", f"{shown(token)} has the id {id}"
            return


def _add(token: str, id: Any, known: _Known) -> Iterator[Hit]:
    """An added token must have the id that every other file gives it."""
    before = known.added.get(token, known.ids.get(token))
    if type(id) is not int:
        yield "tokenizer.malformed", "medium", f"the added token {shown(token)} has no id"
    elif before is not None and before != id:
        yield "tokenizer.remap", "medium", f"{shown(token)} is {id} here, {before} elsewhere"
    else:
        known.added[token] = id


def _vocab(document: dict[str, Any], known: _Known) -> Iterator[Hit]:
    ids = {t: i for t, i in document.items() if type(i) is int}
    if len(ids) != len(document):
        yield "tokenizer.malformed", "medium", "a token's id is no integer"
    yield from _bijection(ids)
    for token, id in ids.items():
        other = known.added.get(token, known.ids.get(token, id))
        if other != id:
            yield "tokenizer.remap", "medium", f"{shown(token)} is {id} here, {other} elsewhere"
            return
    if not known.ids:
        known.ids = ids


def _added(document: dict[str, Any], known: _Known) -> Iterator[Hit]:
    for token, id in document.items():
        yield from _add(token, id, known)


def _config_of_tokenizer(document: dict[str, Any], known: _Known) -> Iterator[Hit]:
    decoder = document.get("added_tokens_decoder")
    for id, entry in decoder.items() if isinstance(decoder, dict) else ():
        token = _content(entry)
        if token is None or not id.isdecimal() or not id.isascii():
            yield "tokenizer.malformed", "medium", f"added_tokens_decoder has {shown(id)}"
            continue
        if isinstance(entry, dict) and entry.get("special"):
            known.special.add(token)
        yield from _add(token, int(id), known)
    yield from _bijection({**known.ids, **known.added})


def _config(document: dict[str, Any], known: _Known) -> Iterator[Hit]:
    """Ids that the model has no embedding for crash it, or read past its table."""
    size = document.get("vocab_size")
    text = document.get("text_config")
    if isinstance(text, dict):
        size = text.get("vocab_size", size)
    ids = {**known.ids, **known.added}
    if type(size) is int and ids and max(ids.values()) >= size:
        worst = max(ids, key=lambda t: ids[t])
        message = f"{shown(worst)} has the id {ids[worst]}, the model knows {size}"
        # Published models have added tokens that they never say (Gemma 3's for images).
        words = [i for t, i in known.ids.items() if t not in known.added]
        beyond = max(words, default=0) >= size
        yield "tokenizer.id-range", "medium" if beyond else "low", message
    yield from _ends(document, known, "low")


def _generation(document: dict[str, Any], known: _Known) -> Iterator[Hit]:
    """What engines go by. A model's configuration often keeps its class's defaults instead."""
    yield from _ends(document, known, "medium")


def _ends(document: dict[str, Any], known: _Known, severity: str) -> Iterator[Hit]:
    """`eos_token_id` and its like name special tokens: a word as the end cuts answers off there."""
    names = {i: t for t, i in {**known.ids, **known.added}.items()}
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = document.get(key)
        for id in value if isinstance(value, list) else [value]:
            if type(id) is not int or not names or id < 0:
                continue
            token = names.get(id)
            if token is None:
                text = f"{key} is {id}, which no token has"
                yield "tokenizer.special-disagrees", "low", text
            elif known.special and token not in known.special:
                message = f"{key} is {id}, which is {shown(token)} and not a special token"
                worse = key == "eos_token_id" and _is_word(token, known)
                yield "tokenizer.special-disagrees", severity if worse else "low", message


def _is_word(token: str, known: _Known) -> bool:
    """Whether it is an ordinary token of the vocabulary, as far as the files tell the two apart."""
    special = token in known.special or token in known.added
    return bool(known.special) and token in known.ids and not special


_JUDGES = (
    ("tokenizer.json", _tokenizer),
    ("vocab.json", _vocab),
    ("added_tokens.json", _added),
    ("tokenizer_config.json", _config_of_tokenizer),
    ("config.json", _config),
    ("generation_config.json", _generation),
)


def _roles(
    files: Mapping[str, Subject], documents: Mapping[str, Any], known: _Known, result: ScanResult
) -> None:
    """Both files that say which token ends an answer should say the same, of a token there is;
    loaders add one that is in no vocabulary."""
    said: dict[str, tuple[str, str]] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        document = documents.get(name)
        if not isinstance(document, dict):
            continue
        for role in _ROLES:
            token = _content(document.get(role))
            if token is None:
                continue
            other, where = said.setdefault(role, (token, name))
            text, severity = "", "low"
            if other != token:
                # Published models have had both ends of a text there. A word is another thing.
                word = role != "pad_token" and any(_is_word(t, known) for t in (token, other))
                severity = "medium" if word else "low"
                text = f"{role} is {shown(token)} here and {shown(other)} in {where}"
            elif known.ids and token not in known.ids and token not in known.added:
                text = f"{role} is {shown(token)}, which is in no vocabulary"
            if text:
                id = "tokenizer.special-disagrees"
                result.findings.append(finding(NAME, files[name], id, severity, text))
        if isinstance(document, dict):
            result.covered.add(files[name].path)


def _content(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
