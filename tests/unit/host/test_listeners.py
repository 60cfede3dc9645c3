"""A port counts as an engine's when its user listens there, and nobody else."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host import endpoint, front, listeners
from airgap.host.endpoint import Endpoint
from airgap.host.paths import HostPaths

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="another user listens: that needs root")


def engine_at(port: int, number: int = 7) -> Endpoint:
    return Endpoint(
        port=port, user=os.geteuid(), state="up", supervisor=2, engine=number, ticks=1, since=1
    )


@contextlib.contextmanager
def listening_as(user: int, address: str = "127.0.0.1") -> Iterator[int]:
    """A port on which that user's process listens and answers nothing."""
    ready, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(user)
        with socket.create_server((address, 0)) as s:
            os.write(said, str(s.getsockname()[1]).encode())
            signal.pause()
    try:
        yield int(os.read(ready, 10))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(said)


def test_who_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        assert listeners.is_ours(engine_at(port))
        with socket.create_connection(("127.0.0.1", port)):
            assert listeners.connections(port) >= 1
    assert not listeners.is_ours(engine_at(port))


@needs_root
def test_another_user_on_the_port_is_not_the_engine() -> None:
    with listening_as(NOBODY) as port:
        assert not listeners.is_ours(engine_at(port))


@needs_root
def test_another_user_on_another_address_is_in_nobodys_way() -> None:
    with listening_as(NOBODY, "127.0.0.2") as port, socket.create_server(("127.0.0.1", port)):
        assert listeners.is_ours(engine_at(port))


@needs_root
def test_the_front_sends_nothing_to_another_users_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = HostPaths(tmp_path / "host")
    relay = front._Front(paths, "tiny")
    with listening_as(NOBODY) as port, listening_as(os.geteuid()) as own:
        monkeypatch.setattr(endpoint, "live", lambda _place: engine_at(port))
        assert relay._engine("tiny", "1") is None
        monkeypatch.setattr(endpoint, "live", lambda _place: engine_at(own))
        assert relay._engine("tiny", "1") == engine_at(own)


def test_a_further_engine_is_looked_at_again() -> None:
    known = listeners.Known()
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
        assert known.is_ours(engine_at(port, 7))
    assert known.is_ours(engine_at(port, 7))
    assert not known.is_ours(engine_at(port, 8))
