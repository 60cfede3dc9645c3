"""A whole air-gapped host: Debian with systemd in a container without a network.

The root file system is made once by mmdebstrap and kept; each container writes to a layer of its
own above it, which a stop and a start keep, as a disk survives a reboot.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.machine import Machine
from tests.e2e.world import Done, run

PACKAGES = "systemd,systemd-sysv,dbus,libgomp1,libnuma1,python3,python3-venv,strace"
# Rights that a container inside a restricted one has; harmless elsewhere.
CONF = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
cgroupns = "host"
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def why_not() -> str | None:
    """Why no such host can be made here, or None."""
    if os.geteuid() != 0:
        return "not root: a host with systemd in a container needs it"
    lacking = [t for t in ("podman", "mmdebstrap", "runc") if shutil.which(t) is None]
    return f"not installed: {', '.join(lacking)} (make test installs them)" if lacking else None


def make_rootfs(
    cache: Path,
    suite: str = "bookworm",
    more: str = "",
    *,
    name: str | None = None,
    hook: str | None = None,
) -> Path:
    """Debian 12 (or another `suite`) with systemd, Python and `more` packages, made once.
    `hook`: a last script, which gets the folder as $1."""
    root = cache / (name or suite)
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}{more}"]
        argv += ["--customize-hook", hook] if hook else []
        done = run([*argv, suite, str(root)], cache)
        assert done.code == 0, done.err[-2000:]
        (root / "complete").touch()
    return root


@dataclass
class Container(Machine):
    """`mounts`: folders of this machine to read-only places inside. `init`: what boots it.
    `state`: a folder of this machine that is /var/lib/airgap inside; in the layer when left out."""

    rootfs: Path
    folder: Path
    mounts: dict[Path, str]
    init: tuple[str, ...] = ("/sbin/init",)
    state: Path | None = None
    name: str = field(default_factory=lambda: f"sealift-{secrets.token_hex(4)}")

    def podman(self, *words: str, expect: int | None = 0) -> Done:
        conf = self.folder / "containers.conf"
        conf.write_text(CONF)
        env = {**os.environ, "CONTAINERS_CONF": str(conf)}
        done = run(["podman", *words], self.folder, env=env)
        assert expect is None or done.code == expect, f"podman {words}: {done}"
        return done

    def begin(self) -> None:
        """Boot."""
        argv = ["run", "-d", "--privileged", "--systemd=always", "--cgroupns", "private"]
        argv += ["--network", "none", "--shm-size", "2g", "--name", self.name]
        for source, target in self.mounts.items():
            argv += ["-v", f"{source}:{target}:ro"]
        if self.state is not None:
            argv += ["-v", f"{self.state}:/var/lib/airgap"]
        done = self.podman(*argv, "--rootfs", f"{self.rootfs}:O", *self.init, expect=None)
        if done.code != 0:
            pytest.skip(f"podman cannot run a container here: {done.err.strip()[-300:]}")
        self.wait_booted()

    def reboot(self, seconds: float = 90) -> None:
        self.podman("stop", "-t", "60", self.name)
        self.podman("start", self.name)
        self.wait_booted(seconds)

    def sh(self, script: str, expect: int | None = 0) -> Done:
        return self.podman("exec", self.name, "sh", "-c", script, expect=expect)

    def close(self) -> None:
        subprocess.run(["podman", "rm", "-f", "-t", "0", self.name], capture_output=True)
