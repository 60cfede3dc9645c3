"""How a scanner words what it found: visible, bounded, the same on every machine."""

from __future__ import annotations

from airgap.format.evidence import Finding
from bundler.scan.interface import Subject

_SHOWN_CHARS = 120
_MESSAGE_CHARS = 2000


class Fault(Exception):
    """A file breaks the rule `id`; `message` says where. Scanners turn it into a finding."""

    def __init__(self, id: str, message: str) -> None:
        super().__init__(message)
        self.id = id
        self.message = message


def words(text: str) -> frozenset[str]:
    """The words of a list that is easier to read as one text."""
    return frozenset(text.split())


def shown(text: object) -> str:
    """`text` quoted for a message: ASCII only, so that nothing in it can turn or hide the line."""
    quoted = ascii(str(text))
    if len(quoted) <= _SHOWN_CHARS:
        return quoted
    return quoted[: _SHOWN_CHARS - 4] + "...'"


def finding(
    scanner: str,
    subject: Subject,
    id: str,
    severity: str,
    message: str,
    details: tuple[str, ...] = (),
    predicate: str | None = None,
) -> Finding:
    """A finding about `subject`. `message` is cut to a length that a report can show."""
    return Finding(
        id=id,
        severity=severity,
        scanner=scanner,
        artifact=subject.artifact,
        path=subject.path,
        sha256=subject.sha256,
        message=message[:_MESSAGE_CHARS],
        details=details,
        predicate=predicate,
    )
