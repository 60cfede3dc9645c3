"""The stable address: a small relay per NAME, from the approved port to whatever is current.

Each request goes to the engine that `current` names at that moment, so replacing one link switches
all traffic: answers under way finish where they began, and the next request on the same connection
reaches the new engine. docs/decisions/0040-switch-without-a-failed-request.md says how.

`/@VERSION/...` reaches the engine of that version, for a gateway that belongs to it.

Where the approved plan names a failover, the API's requests go to that NAME's engine while the own
one cannot answer (docs/decisions/0053-failover.md).
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import signal
from dataclasses import dataclass
from typing import Annotated

from airgap import fsio, limits
from airgap.engines.registry import serving_plan
from airgap.errors import FormatError, HostError, SealiftError
from airgap.format import canonical
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import Port
from airgap.host import endpoint, listeners, locks, theirs
from airgap.host.deployment import load
from airgap.host.endpoint import Pid
from airgap.host.failover import Failover
from airgap.host.gateway import routes
from airgap.host.gateway.http1 import HOP_BY_HOP, Request
from airgap.host.gateway.relay import Backend, Refused, Relay
from airgap.host.paths import FrontPaths, HostPaths

# The version's grammar is the document's; here only what cannot climb out of a folder matters.
_VERSIONED = re.compile(r"/@([A-Za-z0-9][A-Za-z0-9._+-]{0,62})(/.*)")


@dataclass(frozen=True, kw_only=True)
class FrontState(Document):
    """Which process listens on which loopback port."""

    schema: Annotated[str, Choice(("sealift.front/1",))] = "sealift.front/1"
    pid: Pid
    port: Port


def live(paths: FrontPaths) -> FrontState | None:
    """The state written by the front that is alive and listens now, or None."""
    pid = locks.holder(paths.lock)
    if pid is None:
        return None
    data = theirs.read(paths.state, limits.MAX_LEDGER_ENTRY_BYTES)
    if data is None:
        return None  # it has not written it yet
    try:
        state = FrontState.from_json(canonical.decode(data))
    except FormatError:
        return None  # nor of this form: it will be
    return state if state.pid == pid else None


def main(paths: HostPaths, name: str) -> int:
    """Relay for NAME until SIGTERM (returns 0). The port is the current deployment's.

    Raises HostError `host.not-staged`, `host.already-running`, `host.port-taken`.
    """
    version = paths.current_version(name)
    if version is None:
        raise HostError(
            "host.not-staged",
            f"nothing serves as {name}",
            why="no deployment of that name is current",
            do="install its bundle; `airgap status` lists what is here",
        )
    port = serving_plan(load(paths, name, version).manifest).port
    place = paths.front(name)
    locks.hold(place.lock, f"the front of {name}")
    os.chdir(place.folder)
    place.state.unlink(missing_ok=True)
    raise_file_limit()
    asyncio.run(_Front(paths, name).run(port))
    return 0


def raise_file_limit() -> None:
    """Two descriptors a connection: the usual soft limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; call it inside the running loop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


class _Front:
    def __init__(self, paths: HostPaths, name: str) -> None:
        self._paths = paths
        self._name = name
        self._failover = Failover(paths)
        self._known = listeners.Known()

    async def run(self, port: int) -> None:
        stop = stop_signal()
        try:
            server = await Relay(_admit, self._route).listen("127.0.0.1", port)
        except OSError as e:
            raise port_error("127.0.0.1", port, e) from e
        state = FrontState(pid=os.getpid(), port=port)
        fsio.write(self._paths.front(self._name).state, state.to_bytes(), 0o600)
        await stop.wait()
        server.close()
        self._paths.front(self._name).state.unlink(missing_ok=True)

    def _route(self, request: Request) -> Backend:
        """Where the current deployment's engine listens now, or the named version's."""
        version, path = _split(request.path)
        version = version or self._paths.current_version(self._name)
        fields = tuple(f for f in request.fields if f[0] not in HOP_BY_HOP and f[0] != "host")
        asked = [(self._name, version)]
        # Whoever watches over this engine is to hear of this engine.
        if routes.is_openai(request.method, path):
            other = self._failover.of(self._name, version)
            asked += [other] if other is not None else []
        found: Backend | None = None
        for each in reversed(asked):
            where = self._engine(*each)
            if where is not None:
                key = f"{where.supervisor}:{where.engine}"
                found = Backend(where.port, key, path, fields, found)
        if found is None:
            raise Refused(503, "the engine is not running", retry_after=5)
        return found

    def _engine(self, name: str, version: str | None) -> endpoint.Endpoint | None:
        if version is None:
            return None
        try:
            where = endpoint.live(self._paths.deployment(name, version))
            if where is None or where.state != "up" or not self._known.is_ours(where):
                return None
        except SealiftError:
            return None  # the client gets 503; `airgap status` tells the operator why
        return where


def _split(path: str) -> tuple[str | None, str]:
    found = _VERSIONED.fullmatch(path)
    return (found[1], found[2]) if found else (None, path)


def _admit(request: Request) -> None:
    routes.admit(request.method, _split(request.path)[1], watch=True)


def port_error(host: str, port: int, e: OSError) -> SealiftError:
    """Why a daemon of ours cannot listen there."""
    if e.errno != errno.EADDRINUSE:
        return fsio.wrap_os_error(e, f"listening on {host}:{port}")
    return HostError(
        "host.port-taken",
        f"port {port} of this host is taken",
        why="another program listens on it",
        do=f"stop that program (`ss -ltnp 'sport = :{port}'` names it), then run the same command",
    )
