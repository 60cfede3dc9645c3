"""Who listens on a loopback port, and who is connected to it, by the kernel's table (proc(5)).

Between the choice of a port and its engine's first breath any local user may listen there. Nobody
is asked or told anything on a port before it is seen to belong to the user of the supervisor.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from airgap.errors import HostError
from airgap.host.endpoint import Endpoint

# Of our own network namespace; a daemon's view of /proc may have nothing but processes in it.
_TABLE = Path("/proc/self/net/tcp")
_ESTABLISHED, _LISTEN = "01", "0A"
# As the table writes addresses: who listens on another one of this host is not asked by us.
_ADDRESSES = ("127.0.0.1", "0.0.0.0")  # noqa: S104 - it is read, not bound
_REACHED = frozenset(
    f"{int.from_bytes(socket.inet_aton(a), sys.byteorder):08X}" for a in _ADDRESSES
)


def connections(port: int) -> int:
    """Connections established to `port`. Raises HostError `host.proc`."""
    return sum(1 for _ in _rows(port, _ESTABLISHED))


def is_ours(where: Endpoint) -> bool:
    """Whether its supervisor's user, and no other, listens on its port."""
    listening = (r for r in _rows(where.port, _LISTEN) if r[1].partition(":")[0] in _REACHED)
    return {int(row[7]) for row in listening} == {where.user}


class Known:
    """Engines that were seen to listen themselves. A port stays theirs as long as they live."""

    def __init__(self) -> None:
        self._by_port: dict[int, tuple[int, int, int]] = {}

    def is_ours(self, where: Endpoint) -> bool:
        """As above, asked of the kernel until it holds, once for each engine."""
        engine = (where.supervisor, where.engine, where.ticks)
        if self._by_port.get(where.port) != engine:
            if not is_ours(where):
                return False
            self._by_port[where.port] = engine
        return True


def _rows(port: int, state: str) -> Iterator[list[str]]:
    try:
        lines = _TABLE.read_text("ascii").splitlines()[1:]
    except OSError as e:
        raise HostError(
            "host.proc",
            "this host's connections cannot be read",
            why=f"{_TABLE} cannot be read: {e.strerror}",
            do="mount /proc",
        ) from e
    local = f":{port:04X}"
    rows = (line.split() for line in lines)
    return (r for r in rows if r[1].endswith(local) and r[3] == state)
