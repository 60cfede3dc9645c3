"""How a fetch goes about it."""

from __future__ import annotations

from dataclasses import dataclass

from airgap import limits


@dataclass(frozen=True)
class Options:
    """How a fetch goes about it. Sizes in bytes, rates in bytes a second."""

    # Enough to hide latency and caps on single connections, still polite to a public host.
    connections: int = 8
    limit_rate: int | None = None
    # Seconds without one byte until a connection counts as dead.
    stall_seconds: float = 60.0
    # Over each window of that many seconds a connection must bring at least this rate.
    window_seconds: float = 60.0
    least_rate: float = 1000.0
    # A file up to this size is fetched in one answer, held in memory until its digest is checked.
    small_bytes: int = limits.MIB
    # Files that are cut into ranges at one time: one core each for their digests.
    large_at_once: int = 2
