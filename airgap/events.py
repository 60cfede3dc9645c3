"""What long work tells whoever listens. Library code emits; the CLI renders; silence is default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One finished step, for people: a short label and a sentence."""

    label: str
    text: str


@dataclass(frozen=True)
class Warn:
    """Something a person must know although the work goes on. `id` is stable."""

    id: str
    text: str


@dataclass(frozen=True)
class Progress:
    """State of a running step. `done`/`total` in bytes (or items where `unit` says so)."""

    label: str
    done: int
    total: int
    files_done: int = 0
    files_total: int = 0
    unit: str = "bytes"


@dataclass(frozen=True)
class ProgressEnd:
    """The step named by `label` is over; `seconds` of wall time, for people only."""

    label: str
    done: int
    seconds: float


Event = Line | Warn | Progress | ProgressEnd
Sink = Callable[[Event], None]


def silent(_event: Event) -> None:
    """The sink that drops everything."""
