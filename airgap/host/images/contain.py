"""The parent of one engine's container: a daemon between the supervisor and podman or docker.

The container has no network, so it listens on a socket in a folder of its own; this process
listens on the loopback port that the supervisor chose and relays. A container outlives the
client that started it, so a guard in a session of its own waits for the end of this process,
whatever kind of end, and removes the container.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess

from airgap import fsio, limits
from airgap.engines.registry import engine_for
from airgap.errors import HostError
from airgap.host import processes
from airgap.host.deployment import load
from airgap.host.images import bring, launch, tool
from airgap.host.images.launch import Container
from airgap.host.images.tool import Tool
from airgap.host.paths import DeploymentPaths, HostPaths

_POLL_SECONDS = 0.05
_CHUNK_BYTES = 64 * limits.KIB


def main(paths: HostPaths, name: str, version: str, port: int) -> int:
    """Run the container of one deployment until it ends or SIGTERM; returns its exit status.

    Raises HostError `host.not-staged`, `host.no-containers`, IntegrityError `image.digest`.
    """
    deployment = load(paths, name, version)
    manifest, place = deployment.manifest, deployment.paths
    image = manifest.image_to_serve()
    engine = tool.choose(paths)
    found = bring.find(engine, image, paths) or bring.check(None, engine, image, paths)
    label = tool.label_of(place.folder)
    tool.remove_containers(engine, label)
    _make_scratch(place)
    container = Container(found, f"airgap-{label}-{secrets.token_hex(4)}", label)
    socket = f"{launch.SOCKET_FOLDER}/{launch.SOCKET}"
    plan = engine_for(manifest).contained(manifest, place, socket)
    argv = launch.run_argv(engine, container, plan, manifest, place)
    _guard(engine, container.name)
    os.chdir(launch.socket_folder(place))
    with fsio.disk_errors(f"starting {argv[0]}"):
        process = subprocess.Popen(
            argv,
            env=dict(engine.env),
            stdin=subprocess.DEVNULL,
            # The supervisor signals our group; the engine is to get each signal once, from us.
            start_new_session=True,
            preexec_fn=processes.die_with_parent(),
        )
    return asyncio.run(_Relay(process, port).run())


def _make_scratch(place: DeploymentPaths) -> None:
    """The folders that the container writes to, its own. Empty, but its home: what an engine
    compiled stays there."""
    for folder in (launch.socket_folder(place), place.tmp):
        fsio.remove_tree(folder)
    for folder in launch.scratch(place):
        fsio.make_dirs(folder, 0o700)
        with fsio.disk_errors(f"handing {folder} to the container"):
            os.chown(folder, launch.user(), launch.user() if os.geteuid() == 0 else -1)


def _guard(engine: Tool, name: str) -> None:
    """Fork the guard: it holds nothing of ours but the end of a pipe, and acts when that closes."""
    ours, theirs = os.pipe()
    if os.fork() != 0:
        os.close(ours)
        os.set_inheritable(theirs, False)
        return  # `theirs` stays open as long as this process lives, and no longer
    try:
        os.close(theirs)
        os.setsid()
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while os.read(ours, 1):
            continue
        argv = engine.command("rm", "--force", name)
        os.execve(argv[0], argv, dict(engine.env))  # noqa: S606 - becomes the engine's client
    finally:
        os._exit(1)


class _Relay:
    """From the loopback port to the container's socket, byte for byte."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self._port = port

    async def run(self) -> int:
        """Until the container ends. SIGTERM is passed on: the engine ends as it does by itself."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        ended = loop.run_in_executor(None, self._process.wait)
        listens = asyncio.create_task(self._listen())
        await asyncio.wait((ended, listens), return_when=asyncio.FIRST_COMPLETED)
        if listens.done() and listens.exception() is not None:
            self._stop()
        code = await ended
        listens.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await listens
        return code if code >= 0 else 128 - code

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def _listen(self) -> None:
        """Only once the engine does: until then a client is refused, as by an engine in a venv."""
        while not await self._is_up():
            await asyncio.sleep(_POLL_SECONDS)
        try:
            server = await asyncio.start_server(
                self._connected, "127.0.0.1", self._port, backlog=512
            )
        except OSError as e:
            raise HostError(
                "host.port-taken",
                f"port {self._port} of this host is taken",
                why=e.strerror or "another program listens on it",
                do="start it again: another port is chosen",
            ) from e
        await server.serve_forever()

    async def _is_up(self) -> bool:
        try:
            _, writer = await asyncio.open_unix_connection(launch.SOCKET)
        except OSError:
            return False
        writer.close()
        return True

    async def _connected(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            engine, engine_writer = await asyncio.open_unix_connection(launch.SOCKET)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_copy(client, engine_writer), _copy(engine, writer))
        for each in (engine_writer, writer):
            each.close()
            with contextlib.suppress(OSError):
                await each.wait_closed()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """One way, until the source ends; then only this half is closed."""
    try:
        while data := await source.read(_CHUNK_BYTES):
            sink.write(data)
            await sink.drain()
        sink.write_eof()
    except OSError:
        sink.transport.abort()
