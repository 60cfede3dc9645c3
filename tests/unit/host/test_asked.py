"""Programs that answer: in bounds, whatever they do."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from airgap.errors import HostError
from airgap.host import asked
from airgap.host.asked import Said
from airgap.host.gateway import tls
from airgap.host.paths import HostPaths

PYTHON = (sys.executable, "-I", "-c")


def ask(code: str, text: str = "", seconds: float = 60) -> Said:
    return asked.ask((*PYTHON, code), {}, text, seconds)


def test_it_is_told_and_says() -> None:
    code = "import sys; print(sys.stdin.read().upper()); print('e', file=sys.stderr); sys.exit(3)"
    assert ask(code, "word") == Said(3, "WORD\n", "e\n")


def test_who_does_not_listen_is_heard_all_the_same() -> None:
    assert ask("import os; os.close(0); print(1)", "x" * 1000).out == "1\n"


def test_who_says_too_much_is_ended() -> None:
    said = ask("while True: print('x' * 65536)")
    assert said.code == -9 and len(said.out) < 2 * asked._MOST_BYTES


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(600)",
        # A child in a session of its own keeps the outputs open.
        "import os, time; os.fork() or (os.setsid(), time.sleep(20))",
        "import os, time; os.close(1); os.close(2); time.sleep(600)",
    ],
    ids=["sleeps", "leaves a child", "says nothing more"],
)
def test_nobody_is_waited_for_longer_than_was_said(code: str) -> None:
    begun = time.monotonic()
    ask(code, seconds=1)
    assert time.monotonic() - begun < 15


@pytest.mark.parametrize(
    "said",
    [
        Said(1, "", "no module named cryptography"),
        Said(-9, "", ""),
        Said(0, "a banner\n", ""),
        Said(0, '["only one"]', ""),
        Said(0, "[1, 2]", ""),
        Said(0, '["no certificate", "no key"]', ""),
        Said(0, '["\\ud800", "x"]', ""),
    ],
    ids=["failed", "too slow", "banner", "one", "numbers", "nonsense", "surrogate"],
)
def test_what_is_no_certificate_is_not_kept(tmp_path: Path, said: Said) -> None:
    """A hostile image's Python answers; the files that would be kept are used at every start."""
    paths = HostPaths(tmp_path)
    with pytest.raises(HostError) as e:
        tls.ensure(paths, lambda _code, _text: said)
    assert (e.value.id, e.value.exit_code) == ("gateway.certificate", 7)
    assert not paths.tls.exists()
