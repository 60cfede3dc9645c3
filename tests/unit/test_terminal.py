"""What a person at a terminal sees while something runs long."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys

import pytest

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_STEPS = """
import time
from airgap.events import Line, Progress, ProgressEnd
sink = {sink}
for done in range(0, 11):
    sink(Progress({label!r}, done * 30_000_000, 300_000_000, done, 10))
    time.sleep(0.12)
sink(ProgressEnd({label!r}, 300_000_000, 1.2))
sink(Line("done", "all of it"))
"""
CONNECTED = ("from bundler.cli.sinks import choose", "choose(as_json=False, quiet=False)")
ISOLATED = ("from airgap.render import choose_sink", "choose_sink(as_json=False, quiet=False)")


def on_terminal(sink: tuple[str, str], label: str) -> str:
    """Everything that is drawn on a terminal of 100 columns, without what moves the cursor."""
    ours, theirs = pty.openpty()
    script = f"{sink[0]}\n" + _STEPS.format(sink=sink[1], label=label)
    env = {**os.environ, "COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", script], stderr=theirs, env=env) as child:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # EIO: the other end is closed
            while more := os.read(ours, 65_536):
                said += more
    os.close(ours)
    assert child.returncode == 0, said.decode()
    return _ESCAPES.sub("", said.decode())


@pytest.mark.parametrize("sink", [CONNECTED, ISOLATED], ids=["connected", "isolated"])
def test_files_bytes_rate_and_time_left_are_shown(sink: tuple[str, str]) -> None:
    shown = on_terminal(sink, "fetch")
    assert "fetch" in shown
    assert re.search(r"\b5/10\b", shown), "files"
    assert re.search(r"[0-9.]+ [MG]i?B/s", shown), "rate"
    assert re.search(r"0:00:0[0-9]|[0-9] s left", shown), "time left"
    assert shown.rstrip().endswith("all of it")


@pytest.mark.parametrize("sink", [CONNECTED, ISOLATED], ids=["connected", "isolated"])
@pytest.mark.parametrize("label", ["[/evil]", "[red]a.safetensors[/red]", "a[link=file:///x]b"])
def test_a_files_name_is_shown_as_it_is(sink: tuple[str, str], label: str) -> None:
    assert label in on_terminal(sink, label)
