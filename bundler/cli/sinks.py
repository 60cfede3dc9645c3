"""Events on the connected side: rich bars on a terminal, the plain ones elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airgap.events import Event, Progress, ProgressEnd, Sink
from airgap.render import choose_sink, line_text

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID


class RichSink:
    """One live bar for each running step; finished lines above them."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._bars: Bars = Progress(
            # A file's name is no markup, whatever its publisher put into it.
            TextColumn("{task.description:<9}", markup=False),
            BarColumn(24),
            TextColumn("{task.fields[files]}", markup=False),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        """Draw or print."""
        if isinstance(event, Progress):
            self._draw(event)
        elif isinstance(event, ProgressEnd):
            self._end(event)
        else:
            self._bars.console.print(line_text(event), markup=False, highlight=False)

    def _draw(self, p: Progress) -> None:
        files = f"{p.files_done}/{p.files_total}" if p.files_total > 1 else ""
        if p.label not in self._tasks:
            self._bars.start()
            self._tasks[p.label] = self._bars.add_task(p.label, total=p.total, files=files)
        self._bars.update(self._tasks[p.label], completed=p.done, total=p.total, files=files)

    def _end(self, event: ProgressEnd) -> None:
        task = self._tasks.pop(event.label, None)
        if task is not None:
            self._bars.remove_task(task)
        if not self._tasks:
            self._bars.stop()


def choose(*, as_json: bool, quiet: bool) -> Sink:
    """rich only where a person watches."""
    if not as_json and not quiet and sys.stderr.isatty():
        return RichSink()
    return choose_sink(as_json=as_json, quiet=quiet)
