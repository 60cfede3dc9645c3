"""What a `kill -9` at 70 % costs: the share of the bytes that the rerun transfers."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from airgap.store import Store
from tests.bench.fetch.contestants import MODEL, Home
from tests.bench.fetch.site import Hub, noise, serving
from tests.bench.fetch.table import goal, say

_SIZES = {"model-00001.safetensors": 1_000_000_000}
# 8 connections bring 200 MB/s: what is on its way when the kill comes is little, as on a real line.
_RATE = ("--rate", "25000000")
_KILL_AT = 0.70
_GOAL = 0.31


def kill(work: Path, count: int) -> None:
    """1 GB in 1 file, killed when 70 % were sent; then the same command again."""
    shares = []
    with serving(noise(work / "repo", _SIZES), *_RATE) as hub:
        home = Home(work, hub.endpoint, MODEL)
        for number in range(count):
            home.locked()
            first, again = _killed(home, hub)
            shares.append(again)
            say(f"round {number + 1}   {first:.3f} sent, killed, {again:.3f} sent again or for it")
    twice = max(shares)
    print(f"{'1 GB, kill -9 at 70 %':<34} rerun transfers {twice:.3f} of it (worst of {count})")
    print(goal(f"rerun after kill -9 <= {_GOAL:.2f}", f"{twice:.3f}", met=twice <= _GOAL))


def _killed(home: Home, hub: Hub) -> tuple[float, float]:
    """What was sent before the kill, and by the rerun, for each byte of payload."""
    before = hub.sent()
    with subprocess.Popen(home.argv("fetch"), env=home.env, stdout=subprocess.DEVNULL) as child:
        while hub.sent() - before < _KILL_AT * hub.size:
            assert child.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGKILL)
    time.sleep(0.5)
    middle = hub.sent()
    subprocess.run(home.argv("fetch"), env=home.env, check=True, stdout=subprocess.DEVNULL)
    blobs = [p.stat().st_size for p in Store(home.folder / "store").blobs.iterdir()]
    assert max(blobs) == hub.size
    return (middle - before) / hub.size, (hub.sent() - middle) / hub.size
