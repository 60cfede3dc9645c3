"""podman's own Quadlet generator: this host's, or the one of a newer Debian than podman 4.3's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_HERE = Path("/usr/libexec/podman/quadlet")
_SOURCE = (
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    "http://deb.debian.org/debian trixie main\n"
)


def generator(cache: Path) -> Path:
    """The program; skips with the reason where it cannot be had."""
    if _HERE.exists():
        return _HERE
    folder = cache / "quadlet"
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("lists/partial", "archives/partial", "root"):
            (folder / name).mkdir(parents=True)
        (folder / "sources.list").write_text(_SOURCE)
        for words in (("update",), ("download", "podman")):
            _apt(folder, *words)
        (deb,) = folder.glob("podman_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(deb), str(folder / "root")], check=True)
        (folder / "complete").touch()
    return folder / "root" / _HERE.relative_to("/")


def _apt(folder: Path, *words: str) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("podman's generator comes from Debian's packages, and apt-get is not here")
    options = {
        "Dir::Etc::sourcelist": folder / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "Dir::Cache": folder,
        "APT::Sandbox::User": "root",
    }
    named = [w for key, value in options.items() for w in ("-o", f"{key}={value}")]
    done = subprocess.run(
        ["apt-get", *named, "-q", *words], cwd=folder, capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"apt-get cannot bring podman's generator: {done.stderr.strip()[-200:]}")


def generate(program: Path, units: Path, out: Path) -> str:
    """What the generator says, and its services in `out`; fails when it finds an error."""
    env = {"PATH": os.environ["PATH"], "QUADLET_UNIT_DIRS": str(units)}
    for words in (["-dryrun", "-no-kmsg-log"], ["-no-kmsg-log", str(out)]):
        done = subprocess.run([str(program), *words], env=env, capture_output=True, text=True)
        assert done.returncode == 0 and "error" not in done.stderr.lower(), done.stderr
    return done.stdout + done.stderr
