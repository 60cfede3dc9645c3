"""Evidence that is judged: findings of scanners, and the ledger of what each of them covered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated

from airgap.errors import FormatError
from airgap.format.codec import Document
from airgap.format.rules import Choice, Text
from airgap.format.types import Line, Name, PredicateType, Prose, Severity, Sha256, Token


@dataclass(frozen=True, kw_only=True)
class Finding(Document):
    """What one scanner says about one file's bytes. `id` is stable, e.g. `pickle.present`.

    `details` are the SHA-256 of what was found inside (`.pth` files), for policy to list, or of the
    keys that vouch for the file. `predicate`: the in-toto predicate type of what they attest of it.
    """

    id: Token
    severity: Severity
    scanner: Token
    artifact: Name
    path: PurePosixPath
    sha256: Sha256
    message: Prose
    details: tuple[Sha256, ...] = ()
    predicate: PredicateType | None = None


# The longest template in use has some 17,000 characters.
MAX_TEMPLATE_CHARS = 262_144
TemplateText = Annotated[str, Text(None, MAX_TEMPLATE_CHARS, "a template")]


@dataclass(frozen=True, kw_only=True)
class ChatTemplate(Document):
    """A chat template as it was found, for people to read: the engine runs it on every request.

    `place`: the key in the file at `path`, empty where the file is the template. `sha256` is that
    of `text`, and equals the manifest's `chat-template` where the engine is started with it.
    """

    artifact: Name
    path: PurePosixPath
    place: Line
    sha256: Sha256
    text: TemplateText


@dataclass(frozen=True, kw_only=True)
class Findings(Document):
    """All findings, sorted; `tools` names scanners with versions (`modelscan 0.8.8`).

    `templates`: every chat template of every artifact; None where there is none.
    """

    schema: Annotated[str, Choice(("sealift.findings/1",))] = "sealift.findings/1"
    tools: tuple[Line, ...]
    findings: tuple[Finding, ...]
    templates: tuple[ChatTemplate, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Covered(Document):
    """One file in the ledger: which scanners read all of it, or why none could.

    `verdict` `covered` needs at least one scanner; `not-covered` needs a reason.
    """

    artifact: Name
    path: PurePosixPath
    sha256: Sha256
    verdict: Annotated[str, Choice(("covered", "not-covered"))]
    kind: Token
    scanners: tuple[Token, ...] = ()
    reason: Line = ""

    def validate(self) -> None:
        if (self.verdict == "covered") != bool(self.scanners):
            raise FormatError("format.value", "scanners", "'covered' means scanned by something")
        if self.verdict == "not-covered" and not self.reason:
            raise FormatError("format.value", "reason", "'not-covered' needs a reason")


@dataclass(frozen=True, kw_only=True)
class Coverage(Document):
    """The ledger: one line for every file of every artifact, in manifest order."""

    schema: Annotated[str, Choice(("sealift.coverage/1",))] = "sealift.coverage/1"
    files: tuple[Covered, ...]
