"""Processes: starting our own daemons, ending them, and telling one process from another."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import airgap
from airgap import environment, fsio, limits
from airgap.errors import HostError, ServingError
from airgap.host import locks, logs, own_copy
from airgap.host.paths import HostPaths

_POLL_SECONDS = 0.02
_GO = b"1"
# Of something that is being waited for: the first pause, the longest, and the part of the time
# waited so far that one may add to it.
_PAUSE_SECONDS = (0.002, 0.1)
_PAUSE_SHARE = 1 / 50
_PR_SET_PDEATHSIG = 1
# multiprocessing.shared_memory calls its segments so; an unlinked one has " (deleted)" behind it.
_SEGMENT = re.compile(r"(/dev/shm/psm_[0-9a-f]+)$", re.MULTILINE)
# A daemon takes signals as it would from a shell, whatever the command that starts it ignores.
_DEFAULT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def archive() -> Path | None:
    """The zip that this program runs from; None where it is an installed package."""
    found = getattr(getattr(airgap, "__loader__", None), "archive", None)
    return None if found is None else Path(found)


def entry_point(paths: HostPaths) -> tuple[str, ...]:
    """How to run this very program again: its zip, or the installed package.

    Always isolated (-I): neither the environment nor the working folder can add a module. The zip
    is run from a copy under the root.
    """
    python = [sys.executable, "-I"]
    if sys.flags.no_site:
        python.append("-S")
    zipped = archive()
    if zipped is not None:
        return (*python, str(own_copy.keep(zipped, paths.program)))
    return (*python, "-m", "airgap")


def daemon_command(paths: HostPaths, *words: str) -> tuple[str, ...]:
    """The command line of one of our daemons: a hidden command of `airgap`."""
    return (*entry_point(paths), "--root", str(paths.root), *words)


def spawn(paths: HostPaths, log: Path, *words: str, stdin: int | None = None) -> int:
    """Start a daemon in its own session, its output in `log`; returns its process id. It reads from
    the descriptor `stdin`, or nothing."""
    fsio.make_dirs(log.parent, 0o700)
    argv = daemon_command(paths, *words)
    env = environment.private(log.parent, log.parent) | environment.reached()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    nothing = (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
    actions = [
        nothing if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    with fsio.disk_errors(f"starting {argv[0]}"):
        return os.posix_spawn(
            argv[0], argv, env, file_actions=actions, setsid=True, setsigmask=(), setsigdef=_DEFAULT
        )


class Ahead:
    """A daemon that is loaded and waits: it does nothing until `go`, and ends with us before."""

    def __init__(self, paths: HostPaths, log: Path, *words: str) -> None:
        told, self._tell = os.pipe()
        try:
            self._pid: int | None = spawn(paths, log, *words, "--ahead", stdin=told)
        except BaseException:
            os.close(self._tell)
            raise
        finally:
            os.close(told)

    def go(self) -> int:
        """Let it begin; returns its process id."""
        if self._pid is None:
            raise ValueError("it was told already")
        with contextlib.suppress(BrokenPipeError):  # it ended: whoever waits for it says so
            os.write(self._tell, _GO)
        pid, self._pid = self._pid, None
        return pid

    def close(self) -> None:
        """End it, if it was not let go."""
        os.close(self._tell)
        if self._pid is not None:
            _signal(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def told_to_go() -> bool:
    """In the daemon: wait for `go`; False when whoever started us ended without it."""
    return os.read(0, len(_GO)) == _GO


def pause(waited: float) -> None:
    """Sleep before asking again whether something has come that was waited for so long, in seconds:
    what is there soon is seen at once, what takes long is not asked at every turn."""
    first, most = _PAUSE_SECONDS
    time.sleep(min(most, max(first, waited * _PAUSE_SHARE)))


def wait_until(ready: Callable[[], bool], pid: int | None, log: Path, what: str) -> None:
    """Wait until a daemon says it is ready; at once an error when the child `pid` ended before.

    Raises ServingError `serving.daemon` with the end of its log.
    """
    begun = time.monotonic()
    deadline = begun + limits.DAEMON_START_SECONDS
    while not ready():
        ended = pid is not None and _reaped(pid)
        if ended and ready():
            return
        if ended or time.monotonic() > deadline:
            said = logs.tail(log).strip()
            raise ServingError(
                "serving.daemon",
                f"{what} did not start",
                why=said or ("it ended at once" if ended else "it did not answer in time"),
                do=f"correct what is named above, then run the same command again; log: {log}",
            )
        pause(time.monotonic() - begun)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def terminate(lock: Path, seconds: float) -> bool:
    """End the daemon that holds `lock`: SIGTERM, after `seconds` SIGKILL. False when none did."""
    pid = locks.holder(lock)
    if pid is None:
        return False
    _signal(pid, signal.SIGTERM)
    if not _released(lock, pid, seconds):
        _signal(pid, signal.SIGKILL)
        if not _released(lock, pid, limits.DAEMON_START_SECONDS):
            raise HostError(
                "host.process-stuck",
                f"process {pid} cannot be ended",
                why="it still holds its lock after SIGKILL: the kernel waits for a device",
                do="look at the kernel's log; the host may need a restart",
            )
    return True


def _signal(pid: int, number: signal.Signals) -> None:
    assert pid > 1  # noqa: S101 - kill(2): 0, -1 and below are groups, or every process
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it ended by itself in between, which is what was wanted
    except PermissionError as e:
        raise HostError(
            "host.permission",
            f"process {pid} cannot be ended",
            why="it runs as another user",
            do="run this as the user who started it",
        ) from e


def _released(lock: Path, pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while locks.holder(lock) == pid:
        if time.monotonic() > deadline:
            return False
        # A child of ours that ended stays a zombie until it is waited for.
        time.sleep(_POLL_SECONDS)
    return True


def wait_group(leader: int, seconds: float) -> None:
    """Wait until no process of the group lives, its ended leader aside, at most `seconds`."""
    deadline = time.monotonic() + seconds
    while any(_members(leader)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def shared_memory(group: int) -> frozenset[Path]:
    """Segments of Python's shared memory that processes of that group have mapped (proc(5), maps).

    Whoever made one removes it, unless it is killed: then it stays until the host is restarted.
    """
    found: set[Path] = set()
    for pid in _members(group):
        try:
            maps = Path(f"/proc/{pid}/maps").read_text("utf-8", "replace")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it ended in between, or became another user's
        found.update(Path(path) for path in _SEGMENT.findall(maps))
    return frozenset(found)


def _members(group: int) -> Iterator[int]:
    """Processes of that group that run: one that ended and was not waited for does not."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended in between
        # proc(5): after the name in parentheses come the state, the parent, the group.
        state, _, found = stat.rpartition(b")")[2].split()[:3]
        if int(found) == group and state not in (b"Z", b"X"):
            yield int(entry.name)


def start_ticks(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, or None when it is gone: with the id it
    names one process for ever. proc(5), /proc/pid/stat field 22."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rsplit(b")", 1)[1].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def die_with_parent() -> Callable[[], None]:
    """A function for the child between fork and exec: the kernel kills it when the thread that
    forked ends (prctl(2), PR_SET_PDEATHSIG), and no signal stays blocked."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before prctl was there
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return in_child
