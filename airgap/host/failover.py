"""Which engine answers while a deployment's own cannot: the one of the bundle that the approved
plan names, when that one serves every name that this one serves. docs/decisions/0053-failover.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from airgap.engines.registry import serving_plan
from airgap.errors import SealiftError
from airgap.events import Sink, Warn
from airgap.format.types import Serve
from airgap.host.deployment import load
from airgap.host.paths import HostPaths


class Failover:
    """Asked at every request, so it reads a manifest only when its file is another one."""

    def __init__(self, paths: HostPaths) -> None:
        self._paths = paths
        self._plans: dict[Path, tuple[tuple[int, int], Serve]] = {}

    def of(self, name: str, version: str | None) -> tuple[str, str] | None:
        """Name and version of the deployment that stands in for that one, or None."""
        plan = self._plan(name, version)
        if plan is None or plan.failover is None:
            return None
        other = self._paths.current_version(plan.failover)
        return (plan.failover, other) if other and not self.lack(plan) else None

    def lack(self, plan: Serve) -> str:
        """Why the bundle that `plan` names cannot stand in; empty when it can, or none is named."""
        if plan.failover is None:
            return ""
        other = self._plan(plan.failover, self._paths.current_version(plan.failover))
        if other is None:
            return f"nothing serves as {plan.failover} on this host"
        missing = {plan.name, *plan.adapters} - {other.name, *other.adapters}
        return f"{plan.failover} does not serve {', '.join(sorted(missing))}" if missing else ""

    def _plan(self, name: str, version: str | None) -> Serve | None:
        if version is None:
            return None
        path = self._paths.deployment(name, version).manifest
        try:
            st = os.stat(path)
            known = self._plans.get(path)
            if known is None or known[0] != (st.st_ino, st.st_mtime_ns):
                plan = serving_plan(load(self._paths, name, version).manifest)
                known = self._plans[path] = ((st.st_ino, st.st_mtime_ns), plan)
        except (OSError, SealiftError):
            return None  # not whole: `airgap status` says why
        return known[1]


def warn(paths: HostPaths, plan: Serve, sink: Sink) -> None:
    """Say it when the bundle that is to stand in cannot do so now."""
    if why := Failover(paths).lack(plan):
        sink(Warn("serving.no-failover", f"{why}: while this engine is down, requests get 503"))
