"""`airgap facts`: this host as a document that may leave it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from airgap import environment
from airgap.errors import HostError
from airgap.format.facts import Clock, Facts, PythonFact
from airgap.host import hardware, interpreter, nvidia, probe, system
from airgap.host.inspect import clock
from airgap.host.paths import HostPaths
from airgap.trust import state as trust_state

# Versions that wheels are made for in 2026; each is looked for on PATH.
_PYTHONS = tuple(f"3.{minor}" for minor in range(10, 16))
_ASK_SECONDS = 30


def measure(paths: HostPaths) -> Facts:
    """Everything that a bundle may have to fit. Connects to nothing, writes nothing.

    Raises HostError `facts.machine` on a machine that bundles are not made for.
    """
    machine = probe.machine()
    if machine not in ("x86_64", "aarch64"):
        raise HostError(
            "facts.machine",
            f"no bundle can be made for {machine}",
            why="wheels and images are taken for x86_64 and aarch64",
            do="run it on a host of one of these",
        )
    libc = probe.glibc()
    return Facts(
        system=system.system(),
        kernel=system.kernel(),
        machine=machine,
        glibc=f"{libc[0]}.{libc[1]}" if libc else None,
        init=system.init(),
        cgroups=system.cgroups(),
        selinux=system.selinux(),
        apparmor=system.apparmor(),
        pythons=pythons(),
        cpu=hardware.cpu(),
        memory=hardware.memory(),
        disks=hardware.disks(paths.root),
        nvidia=nvidia.measure(),
        cdi=system.has_cdi(),
        runtimes=system.runtimes(),
        libraries=system.libraries(),
        listening=system.listening(),
        clock=_clock(paths),
        default_route=bool(probe.default_routes()),
        resolver=system.has_resolver(),
    )


def pythons() -> tuple[PythonFact, ...]:
    """One interpreter of each version that this host has."""
    found = []
    for version in _PYTHONS:
        for candidate in interpreter.candidates(version):
            answer = interpreter.ask(candidate)
            if answer is not None and answer[0] == version:
                found.append(PythonFact(version=version, venv=_makes_venvs(answer[1])))
                break
    return tuple(found)


def _makes_venvs(python: Path) -> bool:
    """Debian ships `venv` and `ensurepip` apart from the interpreter."""
    try:
        done = subprocess.run(
            [str(python), "-I", "-S", "-c", "import venv, ensurepip"],
            capture_output=True,
            env={"PATH": environment.SYSTEM_PATH, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            timeout=_ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _clock(paths: HostPaths) -> Clock:
    """The newest time that is proven: by the officers' signatures, else by the files here."""
    floor = trust_state.load(paths.trust).clock_floor if paths.trust.exists() else 0
    return Clock(now=clock(), newest_known=max(floor, system.newest_file()))
