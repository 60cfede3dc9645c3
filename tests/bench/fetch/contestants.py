"""Who fetches: `sealift`, and what anybody would use instead, each as one whole process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from tests.bench.fetch.server import REPOSITORY
from tests.bench.fetch.site import Hub

_SHA256 = Path(__file__).parent.parent / "sha256_threads.py"
_REQUEST = """\
name    = "bench"
version = "1"
summary = "what the bench fetches"

[target]
python      = "3.11"
platform    = "x86_64-manylinux_2_36"
accelerator = "cpu"

"""
MODEL = f'[[model]]\nrepo = "{REPOSITORY}"\nrevision = "main"\n'


@dataclass(frozen=True)
class Contestant:
    """`argv` is timed, `prepare` before it is not. `folder`: where everything goes."""

    name: str
    folder: Path
    argv: Sequence[str]
    env: Mapping[str, str]
    prepare: Callable[[], None]


class Home:
    """A workspace of `sealift` that is empty before each round, and its request."""

    def __init__(self, work: Path, endpoint: str, source: str) -> None:
        self.folder = work / "home"
        self._request = work / "bench.toml"
        self.env = clean(work, HF_ENDPOINT=endpoint)
        fsio.write(self._request, (_REQUEST + source).encode())

    def argv(self, *command: str) -> list[str]:
        """A command of `sealift`."""
        home = ["--home", str(self.folder), "--quiet"]
        return [sys.executable, "-m", "bundler", *home, *command, str(self._request)]

    def empty(self) -> None:
        """As if nothing was ever fetched."""
        empty(self.folder)

    def locked(self) -> None:
        """Nothing was fetched but what the lock needs."""
        self.empty()
        subprocess.run(self.argv("lock"), env=self.env, check=True, stdout=subprocess.DEVNULL)
        os.sync()

    def fetch(self) -> Contestant:
        """Every file, checked by both digests, durable."""
        return Contestant("sealift fetch", self.folder, self.argv("fetch"), self.env, self.locked)

    def lock_and_fetch(self) -> Contestant:
        """The same from nothing: which files there are is asked too."""
        argv = self.argv("lock", "--fetch")
        return Contestant("sealift lock --fetch", self.folder, argv, self.env, self.empty)


def curl(hub: Hub, work: Path, *, durable: bool = False) -> Contestant:
    """One file after the other, then SHA-256 of them on two threads."""
    folder = work / "curl"
    pairs = " ".join(f"-o {folder / n} {hub.url(n)}" for n in hub.names)
    check = f"{sys.executable} -I {_SHA256} {folder}"
    script = f"curl -sSfL {pairs} && {check}" + (" && sync" if durable else "")
    name = "curl; SHA-256; sync" if durable else "curl; SHA-256"
    return Contestant(name, folder, ("sh", "-c", script), clean(work), lambda: empty(folder))


def hf_download(hub: Hub, work: Path) -> Contestant:
    """The Hub's own client, over plain HTTP, without its progress bars."""
    home = work / "hf"
    env = clean(
        work,
        HF_ENDPOINT=hub.endpoint,
        HF_HOME=str(home),
        HF_HUB_DISABLE_XET="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_UPDATE_CHECK="1",
        HF_HUB_DISABLE_PROGRESS_BARS="1",
    )
    argv = (str(Path(sys.executable).parent / "hf"), "download", REPOSITORY)
    return Contestant("hf download", home, argv, env, lambda: empty(home))


def aria2c(hub: Hub, work: Path) -> Contestant:
    """Up to 8 connections for a file, up to 8 files at once, SHA-256 checked, no pause between
    tries."""
    folder, listing = work / "aria2c", work / "aria2c.txt"
    lines = []
    for name in hub.names:
        digest = subprocess.check_output(["sha256sum", str(hub.folder / name)], text=True)[:64]
        lines.append(f"{hub.url(name)}\n out={name}\n checksum=sha-256={digest}\n")
    fsio.write(listing, "".join(lines).encode())
    argv = ["aria2c", "--no-conf", "-q", "-x8", "-s8", "-j8", f"--input-file={listing}"]
    argv += ["-d", str(folder)]
    return Contestant("aria2c -x8", folder, argv, clean(work), lambda: empty(folder))


def empty(folder: Path) -> None:
    """Remove it, and let the disk finish what it was given before."""
    fsio.remove_tree(folder)
    fsio.make_dirs(folder)
    os.sync()


def clean(work: Path, **more: str) -> dict[str, str]:
    """An environment without this user's tokens, proxies and settings."""
    kept = {n: v for n, v in os.environ.items() if n in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
    return {**kept, "HOME": str(work / "nobody"), "NO_PROXY": "*", **more}
