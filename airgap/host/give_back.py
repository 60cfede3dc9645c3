"""The return of the version before, when a new one is given up while on probation."""

from __future__ import annotations

import time

from airgap import limits
from airgap.errors import HostError
from airgap.events import Line, Sink, silent
from airgap.host import activate
from airgap.host.activate import Judge
from airgap.host.paths import HostPaths
from airgap.host.probation import on_probation

_ASK_SECONDS = 0.5


def give_back(paths: HostPaths, name: str, version: str, judge: Judge, sink: Sink = silent) -> bool:
    """Serve the version before again, when `version` is current and on probation; whether it was.

    Waits for the command that may still be at its switch. Raises what `activate.rollback` raises.
    """
    deadline = time.monotonic() + limits.DRAIN_SECONDS + limits.DAEMON_START_SECONDS
    while on_probation(paths, name, version):
        try:
            with paths.exclusive("airgap give-back"):
                if not on_probation(paths, name, version):
                    return False
                sink(Line("return", f"{name} {version} was given up while on probation"))
                activate.rollback(paths, name, judge, sink, event="return")
                return True
        except HostError as e:
            if e.id != "host.busy" or time.monotonic() > deadline:
                raise
            time.sleep(_ASK_SECONDS)
    return False
