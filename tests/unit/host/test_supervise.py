"""The supervisor with an engine that only crashes, hangs or litters: restarts bounded, no stray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.format.artifacts import Wheels
from airgap.format.types import Gateway
from airgap.host import endpoint, locks, processes, stage, supervise
from airgap.host.deployment import Deployment
from airgap.host.paths import HostPaths
from tests.unit.host.parts import UV, digest_of, make_manifest, wheel_bytes

_RUN = """
import sys
from pathlib import Path
from airgap import limits
limits.RESTART_BACKOFF_SECONDS = 0
limits.ENGINE_STOP_SECONDS = 1
from airgap.host import supervise
from airgap.host.paths import HostPaths
sys.exit(supervise.main(HostPaths(Path(sys.argv[1])), "tiny", "1"))
"""

IGNORES_SIGTERM = b"#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 0.1; done\n"
HAS_A_CHILD = b"#!/bin/sh\nsleep 300 & echo child $!\nwait\n"


def deploy(tmp_path: Path, program: bytes) -> Deployment:
    paths = HostPaths(tmp_path / "host")
    manifest = make_manifest(paths, wheel=wheel_bytes(program=program))
    return stage.stage(paths, manifest, digest_of(manifest), uv=UV)


def supervise_it(done: Deployment) -> subprocess.Popen[bytes]:
    root = done.paths.folder.parents[2]
    return subprocess.Popen([sys.executable, "-c", _RUN, str(root)])


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_up(done: Deployment) -> bool:
    where = endpoint.live(done.paths)
    return where is not None and where.state == "up"


def child_of(done: Deployment) -> int | None:
    log = done.paths.engine_log
    words = log.read_text().split() if log.exists() else []
    return int(words[1]) if len(words) > 1 else None


def test_engine_that_only_crashes_is_given_up_with_the_reason(tmp_path: Path) -> None:
    done = deploy(tmp_path, b"#!/bin/sh\necho no such thing\nexit 3\n")
    assert supervise_it(done).wait(60) == 9
    said = endpoint.read(done.paths)
    assert said is not None
    assert (said.state, said.crashes, said.last_exit) == ("failed", 6, "ended with exit status 3")
    assert endpoint.live(done.paths) is None
    log = done.paths.engine_log.read_text()
    assert log.count("no such thing") == 6
    assert "start again: False" in log


def test_engine_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    done = deploy(tmp_path, IGNORES_SIGTERM)
    with supervise_it(done) as supervisor:
        wait_for(lambda: is_up(done))
        where = endpoint.live(done.paths)
        assert where is not None
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0
    assert processes.start_ticks(where.engine) is None
    assert endpoint.read(done.paths) is None


def test_children_of_the_engine_end_with_it(tmp_path: Path) -> None:
    done = deploy(tmp_path, HAS_A_CHILD)
    with supervise_it(done) as supervisor:
        wait_for(lambda: child_of(done) is not None)
        child = child_of(done)
        assert child is not None and processes.start_ticks(child) is not None
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(30) == 0
    wait_for(lambda: processes.start_ticks(child) is None)


def test_killed_supervisor_takes_the_engine_along_at_once(tmp_path: Path) -> None:
    done = deploy(tmp_path, IGNORES_SIGTERM)
    with supervise_it(done) as supervisor:
        wait_for(lambda: is_up(done))
        where = endpoint.live(done.paths)
        assert where is not None
        supervisor.kill()
    wait_for(lambda: processes.start_ticks(where.engine) is None)


def test_second_supervisor_of_a_deployment_is_refused(tmp_path: Path) -> None:
    done = deploy(tmp_path, IGNORES_SIGTERM)
    with supervise_it(done) as first:
        wait_for(lambda: is_up(done))
        with subprocess.Popen(
            [sys.executable, "-c", _RUN, str(done.paths.folder.parents[2])],
            stderr=subprocess.PIPE,
        ) as second:
            assert second.wait(30) == 1
            assert second.stderr is not None
            assert b"host.already-running" in second.stderr.read()
        assert locks.holder(done.paths.supervisor_lock) == first.pid
        first.terminate()


def test_damaged_endpoint_does_not_keep_a_supervisor_from_starting(tmp_path: Path) -> None:
    done = deploy(tmp_path, IGNORES_SIGTERM)
    done.paths.endpoint.write_bytes(b"{")
    with supervise_it(done) as supervisor:
        wait_for(lambda: locks.holder(done.paths.supervisor_lock) == supervisor.pid)
        wait_for(lambda: done.paths.endpoint.exists() and done.paths.endpoint.stat().st_size > 9)
        assert is_up(done)
        supervisor.terminate()


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "exit status 3"), (-signal.SIGKILL, "SIGKILL"), (-signal.SIGILL, "another CPU")],
)
def test_way_an_engine_ended_is_said_in_words(code: int, words: str) -> None:
    assert words in supervise.how_it_ended(code)


def test_stray_of_another_start_time_is_left_alone(tmp_path: Path) -> None:
    """A process that got the id of a dead engine is not ours to end."""
    done = deploy(tmp_path, IGNORES_SIGTERM)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as bystander:
        old = endpoint.Endpoint(
            port=1, user=0, state="up", supervisor=2, engine=bystander.pid, ticks=1, since=1
        )
        endpoint.write(done.paths, old)
        with supervise_it(done) as supervisor:
            wait_for(lambda: is_up(done))
            supervisor.terminate()
        assert processes.start_ticks(bystander.pid) is not None
        os.kill(bystander.pid, signal.SIGKILL)


def litters_in_shared_memory(name: str) -> bytes:
    """An engine that keeps a segment mapped and is deaf to SIGTERM, so that it never removes it."""
    return f"""#!{sys.executable}
import signal, time
from multiprocessing import resource_tracker, shared_memory
signal.signal(signal.SIGTERM, signal.SIG_IGN)
resource_tracker.register = lambda *_: None
kept = shared_memory.SharedMemory({name!r}, create=True, size=4096)
print("made", flush=True)
time.sleep(300)
""".encode()


def test_shared_memory_of_a_killed_engine_is_removed(tmp_path: Path) -> None:
    name = f"psm_{os.getpid():08x}"
    segment = Path("/dev/shm") / name
    done = deploy(tmp_path, litters_in_shared_memory(name))
    process = supervise_it(done)
    wait_for(lambda: is_up(done) and segment.exists())
    process.terminate()
    assert process.wait(30) == 0
    assert not segment.exists()


# In a namespace where the kernel has four ports to give.
_FOUR_PORTS = """
from pathlib import Path
from airgap.host.supervise import free_port
from bundler.demo.isolated import raise_loopback
raise_loopback()
Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("40000 40003")
for free in range(40000, 40004):
    for _ in range(20):
        assert free_port(frozenset(range(40000, 40004)) - {free}) == free
print("done")
"""


def test_no_engine_gets_a_port_that_is_to_be_public() -> None:
    flags = ["-n"] if os.geteuid() == 0 else ["-rn"]
    argv = ["unshare", *flags, sys.executable, "-c", _FOUR_PORTS]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_public_ports_are_the_engines_and_the_gateways(tmp_path: Path) -> None:
    manifest = make_manifest(HostPaths(tmp_path))
    assert manifest.serve is not None and manifest.serve.gateway is None
    assert supervise.public_ports(manifest) == {manifest.serve.port}
    (wheels,) = (a for a in manifest.artifacts if isinstance(a, Wheels))
    gate = replace(wheels, name="gate")
    serve = replace(manifest.serve, wheels=wheels.name, gateway=Gateway(wheels="gate", port=8444))
    artifacts = tuple(sorted((*manifest.artifacts, gate), key=lambda a: a.name))
    both = replace(manifest, serve=serve, artifacts=artifacts)
    assert supervise.public_ports(both) == {manifest.serve.port, 8444}
