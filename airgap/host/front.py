"""The stable address: a small relay per NAME, from the approved port to whatever is current.

Each new connection goes to the engine that `current` names at that moment, so replacing one link
switches all traffic and connections that are open finish where they began. It relays bytes and
reads none of them. docs/decisions/0002-stable-front.md says why it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
from dataclasses import dataclass
from typing import Annotated

from airgap import fsio, limits
from airgap.errors import FormatError, HostError, SealiftError
from airgap.format import canonical
from airgap.format.codec import Choice, Document
from airgap.format.types import Port
from airgap.host import endpoint, locks
from airgap.host.deployment import load
from airgap.host.endpoint import Pid
from airgap.host.engines.registry import serving_plan
from airgap.host.paths import FrontPaths, HostPaths

_CHUNK_BYTES = 64 * limits.KIB
_NOT_UP = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nRetry-After: 5\r\n"
    b"Content-Length: 26\r\nConnection: close\r\n\r\nthe engine is not running\n"
)


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
    try:
        with open(paths.state, "rb") as f:
            state = FrontState.from_json(canonical.decode(f.read(limits.MAX_LEDGER_ENTRY_BYTES)))
    except (FileNotFoundError, FormatError):
        return None  # it has not written it yet
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
    _raise_file_limit()
    asyncio.run(_Front(paths, name).run(port))
    return 0


def _raise_file_limit() -> None:
    """Two descriptors a connection: the usual soft limit of 1024 is soon reached."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Front:
    def __init__(self, paths: HostPaths, name: str) -> None:
        self._paths = paths
        self._name = name

    async def run(self, port: int) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        try:
            server = await asyncio.start_server(self._connected, "127.0.0.1", port, backlog=512)
        except OSError as e:
            raise _port_error(port, e) from e
        state = FrontState(pid=os.getpid(), port=port)
        fsio.write(self._paths.front(self._name).state, state.to_bytes(), 0o600)
        await stop.wait()
        server.close()
        self._paths.front(self._name).state.unlink(missing_ok=True)

    def _engine_port(self) -> int | None:
        """Where the current deployment's engine listens now."""
        version = self._paths.current_version(self._name)
        if version is None:
            return None
        try:
            where = endpoint.live(self._paths.deployment(self._name, version))
        except SealiftError:
            return None  # the client gets 503; `airgap status` tells the operator why
        return where.port if where is not None and where.state == "up" else None

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self._engine_port()
        try:
            if port is None:
                raise ConnectionRefusedError
            engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await _refuse(writer)
            return
        await asyncio.gather(_relay(reader, engine_writer), _answer(engine_reader, writer))
        for each in (engine_writer, writer):
            await _close(each)


async def _refuse(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.write(_NOT_UP)
        await writer.drain()
    await _close(writer)


async def _answer(engine: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
    """The engine's bytes to the client. An engine that dies before its first byte has not begun
    to answer: the client gets the same 503 as when nothing listens."""
    try:
        first = await engine.read(_CHUNK_BYTES)
    except OSError:
        first = b""
    if not first:
        with contextlib.suppress(OSError):
            client.write(_NOT_UP)
            await client.drain()
            client.write_eof()
        return
    await _relay(engine, client, first)


async def _relay(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, first: bytes = b""
) -> None:
    """Bytes one way until the source ends, `first` before them; then only this half is closed. A
    connection that breaks ends both ways: the other direction gets its end of file from `abort`."""
    try:
        data = first or await source.read(_CHUNK_BYTES)
        while data:
            sink.write(data)
            await sink.drain()
            data = await source.read(_CHUNK_BYTES)
        sink.write_eof()
    except OSError:
        sink.transport.abort()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def _port_error(port: int, e: OSError) -> SealiftError:
    if e.errno != errno.EADDRINUSE:
        return fsio.wrap_os_error(e, f"listening on 127.0.0.1:{port}")
    return HostError(
        "host.port-taken",
        f"port {port} of this host is taken",
        why="another program listens on it",
        do=f"stop that program (`ss -ltnp 'sport = :{port}'` names it), then run the same command",
    )
