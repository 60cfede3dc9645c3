"""The parent of one container: a daemon between the supervisor and podman or docker.

The container has no network, so it listens on a socket in a folder of its own; this process
listens on the loopback port that the supervisor chose and relays. One that may ask this host for
something finds another socket there. A container outlives the client that started it, so a guard in
a session of its own waits for the end of this process, whatever kind of end, and removes the
container.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import signal
import socket
import stat
import subprocess

from airgap import fsio
from airgap.errors import HostError
from airgap.host import asked, processes
from airgap.host.asked import Said
from airgap.host.deployment import load
from airgap.host.images import bring, ferry, launch, tool
from airgap.host.images.launch import Container, Inside
from airgap.host.images.tool import Tool
from airgap.host.paths import DeploymentPaths, HostPaths


def main(paths: HostPaths, name: str, version: str, port: int) -> int:
    """Run the engine's container of one deployment; as `run`. Raises HostError `host.not-staged`
    as well."""
    deployment = load(paths, name, version)
    return run(paths, launch.of_engine(deployment.manifest, deployment.paths), port)


def run(paths: HostPaths, inside: Inside, port: int) -> int:
    """Run a container, reached on 127.0.0.1:`port`, until it ends or SIGTERM; returns its exit
    status. Raises HostError `host.no-containers`, IntegrityError `image.digest`.
    """
    place = inside.place
    engine = tool.choose(paths)
    label = tool.label_of(place.folder)
    container = container_of(paths, engine, inside)
    tool.remove_containers(engine, label)
    _make_scratch(place)
    argv = launch.run_argv(engine, container, inside)
    _guard(engine, container.name)
    os.chdir(launch.socket_folder(place))
    offered = None if inside.reaches is None else _bound(launch.HOST_SOCKET)
    with fsio.disk_errors(f"starting {argv[0]}"):
        process = subprocess.Popen(
            argv,
            env={**engine.env, **inside.secrets},
            stdin=subprocess.DEVNULL,
            # The supervisor signals our group; the engine is to get each signal once, from us.
            start_new_session=True,
            preexec_fn=processes.die_with_parent(),
        )
    return asyncio.run(_Relay(process, port, offered, inside.reaches).run())


def run_once(paths: HostPaths, inside: Inside, text: str, seconds: float) -> Said:
    """Run a container to its end, with `text` on its stdin, beside one of the same place that may
    be running; nothing of it is left. Raises as `run`."""
    engine = tool.choose(paths)
    container = container_of(paths, engine, inside)
    _guard(engine, container.name)
    argv = launch.run_argv(engine, container, inside, interactive=True)
    try:
        return asked.ask(argv, engine.env, text, seconds)
    finally:
        tool.ask(engine, "rm", "--force", container.name)


def container_of(paths: HostPaths, engine: Tool, inside: Inside) -> Container:
    """A container of exactly the approved image. Raises IntegrityError `image.digest`."""
    image = inside.image
    found = bring.find(engine, image, paths) or bring.check(None, engine, image, paths)
    label = tool.label_of(inside.place.folder)
    return Container(found, f"airgap-{label}-{secrets.token_hex(4)}", label)


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
        os.setsid()
        os.closerange(0, ours)
        os.closerange(ours + 1, os.sysconf("SC_OPEN_MAX"))  # no lock of ours lives on in it
        for _ in range(3 - (ours < 3)):
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)  # becomes 0, 1 and 2
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while os.read(ours, 1):
            continue
        argv = engine.command("rm", "--force", name)
        os.execve(argv[0], argv, dict(engine.env))  # noqa: S606 - becomes the engine's client
    finally:
        os._exit(1)


class _Relay:
    """From the loopback port to the container's socket, byte for byte; and from the host's socket
    within the container to the loopback port that it `reaches`."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        port: int,
        offered: socket.socket | None,
        reaches: int | None,
    ) -> None:
        self._process = process
        self._port = port
        self._offered = offered
        self._reaches = reaches

    async def run(self) -> int:
        """Until the container ends. SIGTERM is passed on: the engine ends as it does by itself."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        offered = None if self._offered is None else await self._lead(self._offered)
        ended = loop.run_in_executor(None, self._process.wait)
        listens = asyncio.create_task(self._listen())
        await asyncio.wait((ended, listens), return_when=asyncio.FIRST_COMPLETED)
        if listens.done() and listens.exception() is not None:
            self._stop()
        code = await ended
        listens.cancel()
        if offered is not None:
            offered.close()
        with contextlib.suppress(asyncio.CancelledError):
            await listens
        return code if code >= 0 else 128 - code

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def _listen(self) -> None:
        """Only once the engine does: until then a client is refused, as by an engine in a venv."""
        await ferry.until_up(_inside)
        try:
            server = await asyncio.start_server(
                ferry.to(_inside), "127.0.0.1", self._port, backlog=512
            )
        except OSError as e:
            raise HostError(
                "host.port-taken",
                f"port {self._port} of this host is taken",
                why=e.strerror or "another program listens on it",
                do="start it again: another port is chosen",
            ) from e
        await server.serve_forever()

    async def _lead(self, offered: socket.socket) -> asyncio.Server:
        there = ferry.to(lambda: asyncio.open_connection("127.0.0.1", self._reaches))
        return await asyncio.start_unix_server(there, sock=offered, backlog=512)


def _bound(name: str) -> socket.socket:
    """A socket of that name in the working folder that everyone may connect to who gets into it:
    the container's user is another than we are. Before it runs, for its mode is never changed
    later: the name may be something else then."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o111)
    try:
        made.bind(name)
    finally:
        os.umask(before)
    return made


async def _inside() -> ferry.Ends:
    """The container writes to the folder of its socket: a link there could lead to any socket that
    root reaches, so none is followed. Raises OSError."""
    fd = os.open(launch.SOCKET, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            raise OSError(errno.ENOTSOCK, "it is no socket", launch.SOCKET)
        return await asyncio.open_unix_connection(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
