"""The model card: what README.md says in its front matter, against what the lock says.

Policies admit licences and publishers by name, so a request that names another one than the card
must not pass unseen. https://huggingface.co/docs/hub/model-cards
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from bundler.scan import bounds
from bundler.scan.interface import OnBytes, ScanResult, Subject, unheard
from bundler.scan.report import finding, shown
from bundler.scan.template_rules import Hit

NAME = "card"
_FRONT = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\n---[ \t]*(\r?\n|$)", re.DOTALL)
_LICENCE_FILE = re.compile(r"(?i)^(licen[cs]e|copying|notice|use_policy)([._-].*)?$")


class CardScanner:
    """Reads the card's front matter; nothing in it is rendered or followed."""

    name = NAME

    def version(self) -> str:
        """The rules are ours; the number goes up when they change."""
        return "card-rules 1"

    def scan(self, artifact: Sequence[Subject], _on_bytes: OnBytes = unheard) -> ScanResult:
        """Takes up README.md at the top of a model or adapter."""
        result = ScanResult()
        top = [s for s in artifact if s.artifact_kind in ("model", "adapter")]
        if not top:
            return result
        cards = [s for s in top if str(s.path).lower() == "readme.md"]
        for card in cards:
            for id, severity, message in _judge(card):
                result.findings.append(finding(NAME, card, id, severity, message))
            result.covered.add(card.path)
        for id, message in _missing(top, cards):
            result.findings.append(finding(NAME, top[0], id, "low", message))
        return result


def _missing(top: Sequence[Subject], cards: Sequence[Subject]) -> Iterator[tuple[str, str]]:
    if not cards:
        yield "card.missing", "the artifact has no README.md: nobody says what it is"
    named = [s for s in top if len(s.path.parts) == 1 and _LICENCE_FILE.search(s.path.name)]
    if not named:
        yield "licence.no-file", "the artifact has no LICENSE file: the card's word stands alone"


def _judge(card: Subject) -> Iterator[Hit]:
    with card.file.open("rb") as file:
        text = file.read(bounds.MAX_CARD_BYTES).decode("utf-8", "replace")
    match = _FRONT.match(text)
    if match is None:
        yield "card.no-front-matter", "low", "the card has no front matter: no licence, no base"
        return
    front = _parsed(match[1])
    if front is None:
        yield "card.malformed", "low", "the card's front matter is not plain YAML"
        return
    yield from _licence(card, front)
    yield from _publisher(card)
    base = front.get("base_model")
    for name in (base if isinstance(base, list) else [base])[:20]:
        if isinstance(name, str):
            yield "card.base-model", "info", f"the card says that it is made from {shown(name)}"


def _parsed(text: str) -> dict[Any, Any] | None:
    import yaml

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _licence(card: Subject, front: dict[Any, Any]) -> Iterator[Hit]:
    word = front.get("license")
    name = front.get("license_name")
    words = {str(w) for w in (word, name) if isinstance(w, str)}
    if not words:
        yield "card.no-licence", "low", "the card states no licence"
    elif not card.stated.licence:
        yield "card.licence", "low", f"the card says {_list(words)}, the lock says no licence"
    elif _same(card.stated.licence) not in set(map(_same, words)):
        stated = shown(card.stated.licence)
        message = f"the card says the licence is {_list(words)}, the lock says {stated}"
        yield "card.licence", "medium", message


def _list(words: set[str]) -> str:
    return " or ".join(map(shown, sorted(words)))


def _same(licence: str) -> str:
    """SPDX identifiers are the same in any case; others too."""
    return licence.strip().casefold()


def _publisher(card: Subject) -> Iterator[Hit]:
    """On a Hub the first part of a repository's name is its owner."""
    parts = card.stated.source.split("/")
    if len(parts) == 3 and card.stated.publisher not in ("", parts[1]):
        owner, said = shown(parts[1]), shown(card.stated.publisher)
        yield "card.publisher", "medium", f"the repository is {owner}'s, the lock says {said}"
