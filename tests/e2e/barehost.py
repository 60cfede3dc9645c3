"""A bare Debian with Python and nothing else, without a network: a root of mmdebstrap's, entered by
chroot in namespaces of its own that end with the fixture."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.hostlab import wait_for
from tests.e2e.world import PROJECT, QUESTION, RAISE_LOOPBACK, Done, run

# libgomp1 is what preflight asks for: llama.cpp's wheel does not carry it.
PACKAGES = "python3,libgomp1"
TAR = "debian-bookworm-python3.tar"
# Debian's own python3 of bookworm.
PYTHON = "3.11"
ENVIRONMENT = ("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")
ASK = """
import json, sys, urllib.request as u
body = {"model": "smol", "max_tokens": 16, "temperature": 0,
        "messages": [{"role": "user", "content": sys.argv[2]}]}
r = u.Request(sys.argv[1], json.dumps(body).encode(), {"Content-Type": "application/json"})
sys.stdout.write(u.urlopen(r, timeout=60).read().decode())
"""


def missing() -> str | None:
    """Why such a host cannot be made here; None when it can."""
    if os.geteuid() != 0:
        return "a chroot with namespaces needs root"
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed (make test installs it on Debian as root)"
    return None


def make_tar(cache: Path) -> Path:
    """The root as a tar: made once (about a minute), then kept in the cache."""
    tar = cache / TAR
    if not tar.exists():
        part = tar.with_suffix(".part.tar")
        argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        subprocess.run([*argv, "bookworm", str(part)], check=True)
        part.rename(tar)
    return tar


@dataclass
class BareHost:
    """`media` is what was carried in: the host sees it as /media."""

    root: Path
    media: Path
    holder: subprocess.Popen[bytes] = field(init=False)
    inner: int = field(init=False, default=0)

    def start(self, tar: Path) -> None:
        """Unpack, enter, raise loopback. No resolver: mmdebstrap leaves the builder's behind."""
        self.root.mkdir()
        subprocess.run(["tar", "-xpf", str(tar), "-C", str(self.root)], check=True)
        for name in ("resolv.conf", "hostname"):
            (self.root / "etc" / name).unlink(missing_ok=True)
        script = (
            f"mount -t proc proc {self.root}/proc && mount --bind {self.media} {self.root}/media "
            f"&& exec chroot {self.root} /bin/sh -c 'while :; do sleep 1; done'"
        )
        flags = ["-n", "-m", "-p", "--fork", "--kill-child"]
        self.holder = subprocess.Popen(["unshare", *flags, "sh", "-c", script])
        wait_for(lambda: self._enterable())
        loopback = [*self._enter("-n"), sys.executable, "-c", RAISE_LOOPBACK]
        subprocess.run(loopback, cwd=PROJECT, check=True)

    def _enterable(self) -> bool:
        place = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children")
        children = place.read_text().split()
        self.inner = int(children[0]) if children else 0
        return bool(children) and os.readlink(f"/proc/{self.inner}/root") == str(self.root)

    def _enter(self, *flags: str) -> list[str]:
        return ["nsenter", "-t", str(self.inner), *flags]

    def do(self, *argv: str, expect: int = 0) -> Done:
        """Run a command inside, with an environment that knows nothing of ours."""
        done = run([*self._enter("-n", "-m", "-p", "-r", "-w"), *ENVIRONMENT, *argv], Path("/"))
        assert done.code == expect, f"{argv}: {done.code}\n{done.out}\n{done.err}"
        return done

    def ask(self, port: int) -> dict[str, Any]:
        """A chat answer, asked for from inside."""
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        return dict(json.loads(self.do("python3", "-c", ASK, url, QUESTION).out))

    def close(self) -> None:
        """End the namespace's first process: the kernel ends all others, and unmounts."""
        if self.inner:
            os.kill(self.inner, signal.SIGKILL)
        self.holder.wait(timeout=30)
        subprocess.run(["rm", "-rf", str(self.root)], check=True)
