"""The ferry as a container runs it: a program of its own, between a socket and a port."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host.images import contain, ferry, launch, tool
from airgap.host.paths import HostPaths
from tests.e2e.hostlab import free_port, wait_for

# A server that knows TCP alone: it asks OUT for each word that it is told, and answers both.
SERVER = """
import socket, sys
own, out = map(int, sys.argv[1:])
with socket.create_server(("127.0.0.1", own)) as server:
    while True:
        client, _ = server.accept()
        with client, socket.create_connection(("127.0.0.1", out)) as further:
            told = b"".join(iter(lambda: client.recv(9), b""))
            if told == b"end":
                sys.exit(7)
            further.sendall(told)
            further.shutdown(socket.SHUT_WR)
            client.sendall(b"".join(iter(lambda: further.recv(9), b"")))
"""


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A host's socket whose listener answers in capital letters, once the other side has ended."""
    path = tmp_path / "o.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.sendall(all_of(client).upper())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ferried(tmp_path: Path, outside: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The ferry and the socket that leads to SERVER, as soon as that listens."""
    inward, own, out = tmp_path / "i.sock", free_port(), free_port()
    words = [str(inward), str(own), str(out), str(outside)]
    program = [sys.executable, "-I", "-c", SERVER, str(own), str(out)]
    argv = [sys.executable, "-I", "-S", ferry.__file__, *words, *program]
    with subprocess.Popen(argv, start_new_session=True) as process:
        try:
            wait_for(inward.exists)
            yield process, inward
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its program too, as a container does it


def ask(path: Path, told: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(20)
        s.connect(str(path))
        s.sendall(told)
        s.shutdown(socket.SHUT_WR)
        return all_of(s)


def all_of(s: socket.socket) -> bytes:
    return b"".join(iter(lambda: s.recv(4096), b""))


def test_bytes_go_in_and_out_and_each_end_is_told(
    ferried: tuple[subprocess.Popen[bytes], Path],
) -> None:
    _, inward = ferried
    assert ask(inward, b"word") == b"WORD"
    long = os.urandom(1 << 20).hex().encode()
    assert ask(inward, long) == long.upper()


def test_it_ends_as_its_program_ends(ferried: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, inward = ferried
    assert ask(inward, b"end") == b""
    assert process.wait(20) == 7


def test_sigterm_is_passed_on(ferried: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, _ = ferried
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM


def test_it_needs_nothing_but_the_standard_library() -> None:
    """The image's Python has nothing of ours."""
    source = Path(ferry.__file__).read_text()
    assert "airgap" not in [line.split()[1] for line in source.splitlines() if "import" in line]
    code = "import runpy, sys; runpy.run_path(sys.argv[1])"
    argv = [sys.executable, "-I", "-S", "-c", code, ferry.__file__]
    assert subprocess.run(argv, check=False).returncode == 0


@pytest.fixture
def socket_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_socket_of_a_container_is_reached(socket_folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(socket_folder / launch.SOCKET))
        server.listen()

        async def reach() -> None:
            _, writer = await contain._inside()
            writer.close()

        asyncio.run(reach())


@pytest.mark.parametrize("how", ["link", "file", "nothing"])
def test_what_a_container_puts_in_its_place_leads_nowhere(
    socket_folder: Path, outside: Path, how: str
) -> None:
    """A link there leads to a socket of the host that root could ask for anything."""
    place = socket_folder / launch.SOCKET
    if how == "link":
        place.symlink_to(outside)
    if how == "file":
        place.write_bytes(b"")
    with pytest.raises(OSError, match=r"no socket|No such file"):
        asyncio.run(contain._inside())


def test_ferry_that_cannot_listen_ends_with_its_program(tmp_path: Path) -> None:
    """It would be there for ever, and nobody could reach it."""
    own = free_port()
    server = [sys.executable, "-I", "-m", "http.server", "--bind", "127.0.0.1", str(own)]
    words = [str(tmp_path / "no/such/folder"), str(own), str(free_port()), "o.sock"]
    argv = [sys.executable, "-I", "-S", ferry.__file__, *words, *server]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "ferry: " in done.stderr
    with socket.socket() as s:
        s.bind(("127.0.0.1", own))  # the program is gone


def test_socket_of_the_host_is_open_to_the_container_from_its_first_moment(
    socket_folder: Path,
) -> None:
    """Nothing changes its mode later: the name may be a link by then."""
    made = contain._bound(launch.HOST_SOCKET)
    found = os.lstat(socket_folder / launch.HOST_SOCKET)
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o666
    made.close()


def test_guard_holds_no_lock_of_its_parent(tmp_path: Path) -> None:
    """It outlives the command that forked it by a moment."""
    engine = tool.Docker("/bin/true", HostPaths(tmp_path))
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    contain._guard(engine, "name")
    os.close(fd)

    def free() -> bool:
        with open(tmp_path / "lock", "rb") as f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    wait_for(free, 10)
