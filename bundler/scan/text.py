"""Text files: secrets that should not travel, characters that a reader does not see.

A text is covered when all of it was decoded and searched. Nothing in it is rendered or followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bundler.scan import bounds
from bundler.scan.interface import OnBytes, ScanResult, Subject, Unscanned, unheard
from bundler.scan.report import finding

NAME = "text"
_KINDS = frozenset(["text", "json", "empty", "script", "lfs-pointer"])
# Issuers' own prefixes and lengths, so that prose and vocabularies do not match by chance.
_SECRETS = (
    ("an AWS access key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_[A-Za-z0-9_]{82}\b"),
    ("a Hugging Face token", r"\bhf_[A-Za-z]{34}\b"),
    ("an OpenAI key", r"\bsk-[A-Za-z0-9_-]{16,}T3BlbkFJ[A-Za-z0-9_-]{16,}"),
    ("an Anthropic key", r"\bsk-ant-[a-z0-9]+-[A-Za-z0-9_-]{80,}"),
    ("a Slack token", r"\bxox[baprs]-[0-9]{8,}-[A-Za-z0-9-]{20,}"),
    ("a Google API key", r"\bAIza[0-9A-Za-z_-]{35}\b"),
    ("a GitLab token", r"\bglpat-[0-9A-Za-z_-]{20}\b"),
    ("a PyPI token", r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}"),
    ("a private key", r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----(?:\\n|\s)+[A-Za-z0-9+/=:, -]{40}"),
)
_SECRET = re.compile("|".join(f"(?P<s{i}>{p})" for i, (_, p) in enumerate(_SECRETS)))

# Unicode 16, section 23.2: characters that reverse what is shown. "Trojan Source".
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Shown as nothing: zero width, invisible operators, a BOM within text, tags outside a flag.
_HIDDEN = re.compile(
    "[\u200b\u2060-\u2064\u206a-\u206f\ufff9-\ufffb]|(?<!^)\ufeff"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]"
)
# Marks and joiners that right-to-left scripts and emoji need; in a template they have no use.
_MARKS = re.compile("[\u200c-\u200f\u00ad]")
# Terminal escapes and other controls; a page feed may stand in a licence.
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f\x80-\x84\x86-\x9f]")

# Lists of tokens hold every character there is, by design.
_VOCABULARY = re.compile(r"(?i)(^|[._-])(vocab|merges)[^/]*\.txt$|\.(tiktoken|bpe|vocab)$")
_TEMPLATE = re.compile(r"(?i)\.(jinja2?|j2|template)$")


class TextScanner:
    """Reads every text and JSON file of a model."""

    name = NAME

    def version(self) -> str:
        """The patterns are ours; the number goes up when they change."""
        return "text-patterns 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up what is text by content."""
        result = ScanResult()
        for subject in artifact:
            if subject.in_tree and subject.kind in _KINDS:
                _scan_one(subject, result)
        return result


def _scan_one(subject: Subject, result: ScanResult) -> None:
    text = _read(subject.file)
    if text is None:
        reason = f"not UTF-8 text of at most {bounds.MAX_TEXT_BYTES} bytes throughout"
        result.unscanned.append(Unscanned(subject.path, reason))
        return
    for message in _secrets_in(text):
        result.findings.append(finding(NAME, subject, "text.secret", "high", message))
    # In JSON the strings that people read are judged one by one (config.py).
    if subject.kind != "json" and not _VOCABULARY.search(subject.path.name):
        is_template = _TEMPLATE.search(subject.path.name) is not None
        for id, severity, message in hidden_in(text, is_template=is_template):
            result.findings.append(finding(NAME, subject, id, severity, message))
    result.covered.add(subject.path)


def _read(path: Path) -> str | None:
    with path.open("rb") as file:
        data = file.read(bounds.MAX_TEXT_BYTES + 1)
    if len(data) > bounds.MAX_TEXT_BYTES or b"\x00" in data:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _secrets_in(text: str) -> Iterator[str]:
    """Say what and where, never the secret itself. One for each kind is enough."""
    seen: set[str] = set()
    for match in _SECRET.finditer(text):
        what = _SECRETS[int((match.lastgroup or "s0")[1:])][0]
        if what not in seen:
            seen.add(what)
            yield f"line {_line(text, match.start())} holds what looks like {what}"


def hidden_in(text: str, *, is_template: bool) -> Iterator[tuple[str, str, str]]:
    """(finding id, severity, message) for characters that hide or turn what a reader sees.

    A chat template is code that a model obeys: there, anything unseen is `high`. In prose, what
    writing systems need is left alone and what is only odd is `low`.
    """
    odd = "high" if is_template else "low"
    yield from _first(_BIDI, text, "text.bidirectional", "high", "turns the reading direction")
    yield from _first(_HIDDEN, text, "text.hidden", odd, "is not shown")
    yield from _first(_CONTROL, text, "text.control", odd, "is a control character")
    if is_template:
        yield from _first(_MARKS, text, "text.hidden", odd, "is not shown")


def _first(
    pattern: re.Pattern[str], text: str, id: str, severity: str, what: str
) -> Iterator[tuple[str, str, str]]:
    match = pattern.search(text)
    if match is not None:
        where = _line(text, match.start())
        yield id, severity, f"U+{ord(match.group()):04X} in line {where} {what}"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
