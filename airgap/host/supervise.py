"""The supervisor: one small daemon per deployment, parent of its engine.

It holds `run/supervisor.lock` as long as it lives, starts the engine on a private loopback port,
says in `run/endpoint.json` where, starts it again after a crash, bounds its log, and ends it on
SIGTERM. When the supervisor is killed, the kernel kills the engine.

Signals are blocked and taken one by one (`sigtimedwait`), so nothing is interrupted half-way and
nothing polls. Every module is imported at the top: the program file may be on a medium that leaves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from airgap import fsio, limits
from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import serving_plan
from airgap.errors import IntegrityError
from airgap.format.manifest import Manifest
from airgap.host import endpoint, launch, locks, probation, processes
from airgap.host.deployment import load
from airgap.host.endpoint import Endpoint
from airgap.host.logs import RotatingLog
from airgap.host.paths import DeploymentPaths, HostPaths
from airgap.host.runtimes import runtime_for

_STOP = (signal.SIGTERM, signal.SIGINT)
_AWAITED = (*_STOP, signal.SIGCHLD)
# An engine that does not end after SIGKILL hangs in the kernel; do not wait for it for ever.
_KILL_SECONDS = 10


def main(paths: HostPaths, name: str, version: str) -> int:
    """Serve one deployment until SIGTERM (returns 0) or until it crashes too often (returns 9).

    Given up while on probation, it has the version before brought back. Raises HostError
    `host.already-running`, `host.not-staged`.
    """
    deployment = load(paths, name, version)
    runtime = runtime_for(paths, deployment.manifest)
    code = supervise(
        deployment.paths,
        lambda port: runtime.plan(deployment, port),
        f"the supervisor of {deployment.title}",
        public_ports(deployment.manifest),
    )
    own = launch.read(paths).kind == "own"  # else OnFailure= of the unit does it
    if code != 0 and own and probation.on_probation(paths, name, version):
        processes.spawn(paths, deployment.paths.logs / "give-back.log", "give-back", name, version)
    return code


def public_ports(manifest: Manifest) -> frozenset[int]:
    """What is open to others once it serves: no engine may sit there before the front does."""
    serve = serving_plan(manifest)
    return frozenset({serve.port} | ({serve.gateway.port} if serve.gateway else set()))


def supervise(
    place: DeploymentPaths, plan: Callable[[int], LaunchPlan], what: str, public: frozenset[int]
) -> int:
    """Keep what `plan` starts on a port, none of the `public` ones, running; the state is in
    `place`. As `main` otherwise."""
    locks.hold(place.supervisor_lock, what)
    os.chdir(place.run)
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    return _Supervisor(place, plan, public).run()


class _Supervisor:
    def __init__(
        self, place: DeploymentPaths, plan: Callable[[int], LaunchPlan], public: frozenset[int]
    ) -> None:
        self._paths = place
        self._plan = plan
        self._public = public
        self._log = RotatingLog(self._paths.engine_log)
        self._crashes: list[float] = []

    def run(self) -> int:
        """Start, wait, start again."""
        self._end_stray()
        fsio.make_dirs(self._paths.run / "home", 0o700)
        while True:
            self._clear_tmp()
            process, where = self._start()
            stopped = self._wait(process)
            self._clear_tmp()
            if stopped:
                self._paths.endpoint.unlink(missing_ok=True)
                return 0
            self._crashes.append(time.monotonic())
            if not self._may_restart(where, process.returncode):
                return 9
            if signal.sigtimedwait(_STOP, self._backoff()) is not None:
                self._paths.endpoint.unlink(missing_ok=True)
                return 0

    def _clear_tmp(self) -> None:
        """Sockets and scratch files of an engine end with it, also when it was killed."""
        fsio.make_dirs(self._paths.tmp, 0o700)
        for entry in self._paths.tmp.iterdir():
            fsio.remove_tree(entry)  # the folder stays: a service user could not make it again

    def _end_stray(self) -> None:
        """A supervisor that was killed takes its engine with it, but not the engine's children."""
        try:
            old = endpoint.read(self._paths)
        except IntegrityError:
            old = None  # it names no process that could be found; it is made anew below
        if old is not None and processes.start_ticks(old.engine) == old.ticks:
            _signal_group(old.engine, signal.SIGKILL)
        self._paths.endpoint.unlink(missing_ok=True)

    def _start(self) -> tuple[subprocess.Popen[bytes], Endpoint]:
        port = free_port(self._public)
        plan = self._plan(port)
        with fsio.disk_errors(f"starting {plan.argv[0]}"):
            process = subprocess.Popen(
                plan.argv,
                env=dict(plan.env),
                cwd=plan.cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=processes.die_with_parent(),
            )
        where = Endpoint(
            port=port,
            user=os.geteuid(),
            state="up",
            supervisor=os.getpid(),
            engine=process.pid,
            ticks=processes.start_ticks(process.pid) or 0,
            since=int(time.time()),
            crashes=len(self._crashes),
        )
        endpoint.write(self._paths, where)
        return process, where

    def _wait(self, process: subprocess.Popen[bytes]) -> bool:
        """True when we were asked to stop, False when the engine ended by itself."""
        assert process.stdout is not None  # noqa: S101 - opened as a pipe above
        pump = threading.Thread(target=_pump, args=(process.stdout, self._log), daemon=True)
        pump.start()
        segments: frozenset[Path] = frozenset()
        try:
            while not _ended(process):
                if signal.sigwait(_AWAITED) in _STOP:
                    segments = processes.shared_memory(process.pid)
                    self._stop(process)
                    return True
            return False
        finally:
            segments |= processes.shared_memory(process.pid)
            # What the engine started ends with it, and takes its shared memory along.
            processes.wait_group(process.pid, limits.ENGINE_GROUP_SECONDS)
            # The whole group goes before the leader is reaped, while the id is surely its own.
            _signal_group(process.pid, signal.SIGKILL)
            process.wait()
            for segment in segments:
                segment.unlink(missing_ok=True)
            pump.join()
            process.stdout.close()

    def _stop(self, process: subprocess.Popen[bytes]) -> None:
        _signal_group(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + limits.ENGINE_STOP_SECONDS
        while not _ended(process) and (left := deadline - time.monotonic()) > 0:
            signal.sigtimedwait((signal.SIGCHLD,), left)

    def _may_restart(self, where: Endpoint, returncode: int) -> bool:
        """Say how it ended; False when it ended too often within the window."""
        since = time.monotonic() - limits.RESTART_WINDOW_SECONDS
        recent = [t for t in self._crashes if t >= since]
        again = len(recent) <= limits.MAX_RESTARTS
        how = how_it_ended(returncode)
        self._log.write(f"supervisor: the engine {how}; start again: {again}\n".encode())
        after = Endpoint(
            port=where.port,
            user=where.user,
            state="down" if again else "failed",
            supervisor=where.supervisor,
            engine=where.engine,
            ticks=where.ticks,
            since=int(time.time()),
            crashes=len(self._crashes),
            last_exit=how,
        )
        endpoint.write(self._paths, after)
        return again

    def _backoff(self) -> float:
        since = time.monotonic() - limits.RESTART_WINDOW_SECONDS
        recent = sum(1 for t in self._crashes if t >= since)
        seconds = limits.RESTART_BACKOFF_SECONDS * 2 ** max(0, recent - 1)
        return float(min(seconds, limits.MAX_RESTART_BACKOFF_SECONDS))


def _pump(source: IO[bytes], log: RotatingLog) -> None:
    """Engine output into the bounded log, and to the journal, until the engine closes it."""
    journal = "JOURNAL_STREAM" in os.environ
    while chunk := os.read(source.fileno(), 65536):
        log.write(chunk)
        if journal:
            with contextlib.suppress(OSError):  # the bounded log is the one that must not lack it
                fsio.write_all(1, memoryview(chunk))


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it ended, without reaping it: its id stays its own until we have used it."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def _signal_group(leader: int, number: signal.Signals) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return  # the whole group has ended


def free_port(public: frozenset[int] = frozenset()) -> int:
    """A loopback port that nobody listens on now, none of the `public` ones; the kernel does not
    hand it out again soon."""
    with contextlib.ExitStack() as held:
        while True:
            s = held.enter_context(socket.socket())
            s.bind(("127.0.0.1", 0))
            port = int(s.getsockname()[1])
            if port not in public:
                return port  # those that will not do are held until here, so none comes twice


def how_it_ended(returncode: int) -> str:
    """An exit status as a person reads it; SIGILL is the sign of a wheel for another CPU."""
    if returncode >= 0:
        return f"ended with exit status {returncode}"
    name = {s.value: s.name for s in signal.Signals}.get(-returncode, f"signal {-returncode}")
    if -returncode == signal.SIGILL:
        return f"was ended by {name}: it is built for another CPU, with instructions this one lacks"
    return f"was ended by {name}"
