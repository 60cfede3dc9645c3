"""Debian's docker without installing it: its programs unpacked into the tests' cache, its daemon
for the time of a test, on a host that has no podman and no network."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hostlab import wait_for
from tests.e2e.imagelab import no_network

_CLONE_NEWNS = 0x00020000
_PACKAGES = ("docker.io", "containerd")
# Debian 13's docker knows CDI. It runs with this Debian's libraries; its runc would not.
_NEWER = ("trixie", "docker.io,docker-cli,containerd")
# On the PATH of our own commands, and empty on Debian.
_PLACE = Path("/usr/local/sbin")


def unpacked(cache: Path) -> Path:
    """The folder of its programs; skips with the reason where they cannot be had."""
    folder = cache / "docker"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "debs").mkdir(parents=True)
        if shutil.which("apt-get") is None:
            pytest.skip("docker's programs come from Debian's packages, and apt-get is not here")
        argv = ["apt-get", "-q", "download", *_PACKAGES]
        done = subprocess.run(argv, cwd=folder / "debs", capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"apt-get cannot download docker: {done.stderr.strip()[-200:]}")
        for deb in (folder / "debs").iterdir():
            subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "root")], check=True)
        _gather(folder / "root", folder)
    return folder / "programs"


def newer(cache: Path) -> Path:
    """The folder of Debian 13's programs; skips with the reason where they cannot be had."""
    folder = cache / "docker-trixie"
    if shutil.which("mmdebstrap") is None:
        pytest.skip("Debian 13's docker is unpacked by mmdebstrap (make test installs it)")
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        suite, packages = _NEWER
        argv = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={packages}", suite]
        subprocess.run([*argv, str(folder)], check=True)
        _gather(folder, folder)
    return folder / "programs"


def _gather(root: Path, folder: Path) -> None:
    """Docker's own programs of `root` in one place, without runc: this machine's serves all."""
    (folder / "programs").mkdir()
    for program in [*root.glob("usr/bin/*"), *root.glob("usr/sbin/*")]:
        ours = program.name.startswith(("docker", "containerd", "ctr"))
        if ours and program.is_file() and not program.is_symlink():
            shutil.move(program, folder / "programs" / program.name)
    (folder / "complete").touch()


@contextlib.contextmanager
def only_docker(programs: Path, folder: Path, *options: str) -> Iterator[None]:
    """This thread, and all that it starts, on a host without a network where docker is the only
    container engine, and its daemon runs with `options`. Root."""
    with _own_mounts(), no_network():
        subprocess.run(["mount", "--bind", str(programs), str(_PLACE)], check=True)
        podman = shutil.which("podman")
        if podman is not None:
            subprocess.run(["mount", "--bind", "/dev/null", podman], check=True)
        os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        daemon = _daemon(folder, *options)
        try:
            wait_for((folder / "docker.sock").exists, 30)
            wait_for(lambda: docker("info").returncode == 0, 30)
            yield
        finally:
            daemon.terminate()
            daemon.wait(60)
            del os.environ["DOCKER_HOST"]


def docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(_PLACE / "docker"), *words], capture_output=True, text=True)


def _daemon(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    argv = [str(_PLACE / "dockerd"), "--data-root", str(folder / "data"), "--exec-root"]
    argv += [str(folder / "exec"), "--pidfile", str(folder / "pid"), "--iptables=false"]
    argv += ["--bridge=none", "--host", f"unix://{folder}/docker.sock", *options]
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(argv, stdout=log, stderr=log)


@contextlib.contextmanager
def _own_mounts() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    here = Path.cwd()
    with open("/proc/thread-self/ns/mnt", "rb") as before:
        assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
        try:
            subprocess.run(["mount", "--make-rprivate", "/"], check=True)
            yield
        finally:
            assert libc.setns(before.fileno(), _CLONE_NEWNS) == 0
            os.chdir(here)
