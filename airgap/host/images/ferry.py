"""Bytes between Unix sockets and loopback ports.

Our own daemons use it, and a container runs it as a program, by its image's Python, for a server
that knows TCP alone: `ferry.py SOCKET PORT OUT_PORT OUT_SOCKET PROGRAM [ARGUMENT...]` starts
PROGRAM, leads SOCKET to its PORT once it listens, and its own connections to OUT_PORT to
OUT_SOCKET. All of that within the loopback of a container that has no other network.

The container is given this one file: nothing of ours is imported, only the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable

_CHUNK_BYTES = 65536
_POLL_SECONDS = 0.05
_STOP = (signal.SIGTERM, signal.SIGINT)
# Signals that came before there was a program to pass them on to: the kernel drops one that the
# first process of a container does not wait for.
_told: list[int] = []
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def to(connect: Callable[[], Awaitable[Ends]]) -> Callable[..., Awaitable[None]]:
    """What a server does with each connection: join it to one that `connect` opens."""

    async def connected(client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server, server_writer = await connect()
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(client, server_writer), _copy(server, writer))
        for each in (server_writer, writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()

    return connected


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """One way, until the source ends; then only this half is closed."""
    try:
        while data := await source.read(_CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()


async def until_up(connect: Callable[[], Awaitable[Ends]]) -> None:
    """Wait until somebody listens there."""
    while True:
        try:
            _, writer = await connect()
        except OSError:
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return


async def _run(socket: str, port: int, out_port: int, out_socket: str, argv: list[str]) -> int:
    """Until PROGRAM ends; returns its exit status. SIGTERM is passed on to it, and it is ended when
    nobody could reach it: raises the OSError then."""
    out = to(lambda: asyncio.open_unix_connection(out_socket))
    outward = await asyncio.start_server(out, "127.0.0.1", out_port)
    process = await asyncio.create_subprocess_exec(*argv)
    loop = asyncio.get_running_loop()
    for number in _STOP:
        loop.add_signal_handler(number, process.terminate)
    if _told:
        process.terminate()
    listens = asyncio.create_task(_lead(socket, port))
    ended = asyncio.create_task(process.wait())
    await asyncio.wait((listens, ended), return_when=asyncio.FIRST_COMPLETED)
    if listens.done() and process.returncode is None:
        process.kill()
        await ended
        listens.result()
    listens.cancel()
    outward.close()
    code = await ended
    return code if code >= 0 else 128 - code


async def _lead(socket: str, port: int) -> None:
    def program() -> Awaitable[Ends]:
        return asyncio.open_connection("127.0.0.1", port)

    await until_up(program)
    server = await asyncio.start_unix_server(to(program), socket, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    for _number in _STOP:
        signal.signal(_number, lambda number, _frame: _told.append(number))
    _socket, _port, _out_port, _out_socket, *_program = sys.argv[1:]
    try:
        _code = asyncio.run(_run(_socket, int(_port), int(_out_port), _out_socket, _program))
    except OSError as _e:
        print(f"ferry: {_e}", file=sys.stderr, flush=True)
        _code = 1
    os._exit(_code)  # a thread must not keep a container that has nothing to serve
