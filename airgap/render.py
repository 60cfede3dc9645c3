"""Turns events and errors into lines: for people, or JSON lines. Used by both command lines.

Progress goes to stderr and results to stdout, so that a pipe gets only results.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, TextIO

from airgap.errors import SealiftError
from airgap.events import Event, Line, Progress, ProgressEnd, Sink, Warn


def harmless(text: str) -> str:
    """Text that may quote a hostile medium: a terminal gets no control sequences from it."""
    return "".join(
        c if c == "\n" or c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def error_lines(error: SealiftError) -> list[str]:
    """What a person reads: id and what, then why and do, then the exit code."""
    return [
        harmless(f"error {error.id}: {error.what}"),
        harmless(f"  why    {error.why}"),
        harmless(f"  do     {error.do}"),
        f"exit {error.exit_code}",
    ]


def error_json(error: SealiftError) -> str:
    """The same as one JSON line."""
    return json.dumps(
        {
            "event": "error",
            "id": error.id,
            "what": error.what,
            "why": error.why,
            "do": error.do,
            "exit": error.exit_code,
        },
    )


def event_json(event: Event) -> str:
    """One event as one JSON line; `event` is its kind in lower case."""
    out: dict[str, Any] = {"event": type(event).__name__.lower(), **dataclasses.asdict(event)}
    return json.dumps(out)


def line_text(event: Line | Warn) -> str:
    """One finished step for people: a label in a column, then the sentence."""
    if isinstance(event, Warn):
        return f"warning {event.id}: {event.text}"
    return f"{event.label:<9} {event.text}"


def size_text(count: float) -> str:
    """Bytes in decimal units, as disks and media are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"


class PlainSink:
    """For people without a terminal: finished steps only, no bars."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """Print lines and warnings; a finished step with its rate; no running progress."""
        if isinstance(event, (Line, Warn)):
            print(line_text(event), file=self._stream, flush=True)
        elif isinstance(event, ProgressEnd) and event.seconds >= 1:
            rate = size_text(event.done / event.seconds)
            text = f"{size_text(event.done)} in {event.seconds:.1f} s, {rate}/s"
            print(f"{event.label:<9} {text}", file=self._stream, flush=True)


class BarSink:
    """For a terminal: one line that is drawn again while a step runs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._plain = PlainSink(stream)
        self._started: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Draw."""
        if isinstance(event, Progress):
            self._draw(event)
            return
        self._stream.write("\r\x1b[K")
        if isinstance(event, ProgressEnd):
            self._started.pop(event.label, None)
        self._plain(event)
        self._stream.flush()

    def _draw(self, p: Progress) -> None:
        import time

        now = time.monotonic()
        elapsed = now - self._started.setdefault(p.label, now)
        share = p.done / p.total if p.total else 1.0
        bar = "#" * int(24 * share) + "-" * (24 - int(24 * share))
        rate = p.done / elapsed if elapsed > 0.3 else 0.0
        left = f"{(p.total - p.done) / rate:.0f} s left" if rate else ""
        files = f"{p.files_done}/{p.files_total} files  " if p.files_total > 1 else ""
        speed = f"{size_text(rate)}/s  " if rate and p.unit == "bytes" else ""
        text = f"{p.label:<9} {bar}  {share:4.0%}  {files}{speed}{left}"
        self._stream.write(f"\r\x1b[K{text}")
        self._stream.flush()


class JsonSink:
    """JSON lines for programs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __call__(self, event: Event) -> None:
        """One line for every event."""
        print(event_json(event), file=self._stream, flush=True)


def choose_sink(*, as_json: bool, quiet: bool) -> Sink:
    """The right sink for this process's stderr."""
    if as_json:
        return JsonSink(sys.stderr)
    if quiet:
        return lambda _event: None
    return BarSink(sys.stderr) if sys.stderr.isatty() else PlainSink(sys.stderr)


def report_error(error: SealiftError, *, as_json: bool) -> None:
    """Write an error to stderr."""
    text = error_json(error) if as_json else "\n".join(error_lines(error))
    print(text, file=sys.stderr, flush=True)
