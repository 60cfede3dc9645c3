"""`airgap preflight BUNDLE`: approval first, then the host, and never a byte written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airgap.format.policy import Policy
from airgap.host.paths import HostPaths
from airgap.trust import state
from tests.lab import Lab

MODEL = {"model.gguf": b"GGUF" * 500_000}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """An organisation whose present is now: the command reads the real clock."""
    made = Lab(tmp_path_factory.mktemp("lab"), now=int(time.time()) - 60)
    made.init()
    return made


@pytest.fixture(scope="module")
def bundle(lab: Lab) -> Path:
    return lab.pack(lab.approve(files=MODEL))


@pytest.fixture
def paths(lab: Lab, tmp_path: Path) -> HostPaths:
    found = HostPaths(tmp_path / "host")
    found.root.mkdir()
    state.save(found.trust, lab.host_state())
    return found


def preflight(paths: HostPaths, bundle: Path) -> tuple[int, str, dict[str, Any]]:
    argv = [sys.executable, "-m", "airgap", "--root", str(paths.root), "--json"]
    done = subprocess.run(
        [*argv, "preflight", str(bundle)], capture_output=True, text=True, check=False
    )
    last = json.loads(done.stderr.strip().splitlines()[-1]) if done.stderr.strip() else {}
    return done.returncode, done.stdout, last


def written(paths: HostPaths) -> list[str]:
    return sorted(p.name for p in paths.root.iterdir())


def test_what_fits_is_said_with_its_bytes_and_nothing_is_written(
    paths: HostPaths, bundle: Path
) -> None:
    before = paths.trust.read_bytes()
    code, out, _ = preflight(paths, bundle)
    assert code == 0
    (disk,) = json.loads(out)["disks"]
    blobs = sum(p.stat().st_size for p in (bundle / "blobs" / "sha256").iterdir())
    # Every blob of the manifest; the two that only describe it to other tools stay on the medium.
    assert 2_000_000 <= disk["needs"] <= blobs and disk["free"] > disk["needs"]
    assert written(paths) == ["trust.json"] and paths.trust.read_bytes() == before


def test_a_bundle_of_strangers_is_refused_before_the_host_is_looked_at(
    paths: HostPaths, tmp_path: Path
) -> None:
    other = Lab(tmp_path / "other", names=("mallory", "eve"), now=int(time.time()) - 60)
    other.init()
    forged = other.pack(other.approve(files=MODEL))
    code, out, error = preflight(paths, forged)
    assert code == 4 and error["id"].startswith("trust.")
    assert out == "" and written(paths) == ["trust.json"]


def test_an_extra_file_is_refused(paths: HostPaths, bundle: Path) -> None:
    extra = bundle / "autorun.inf"
    extra.write_bytes(b"x")
    try:
        code, _, error = preflight(paths, bundle)
    finally:
        extra.unlink()
    assert (code, error["id"]) == (3, "bundle.extra")
    assert written(paths) == ["trust.json"]


def test_the_hosts_policy_comes_first(paths: HostPaths, bundle: Path) -> None:
    paths.policy.write_bytes(Policy(formats=("safetensors",)).to_bytes())
    code, _, error = preflight(paths, bundle)
    assert code == 5 and error["id"].startswith("policy.")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_told_to_the_byte(
    lab: Lab, small_disk: Path, bundle: Path
) -> None:
    paths = HostPaths(small_disk / "host")
    paths.root.mkdir()
    state.save(paths.trust, lab.host_state())
    code, _, error = preflight(paths, bundle)
    assert (code, error["id"]) == (8, "disk.full")
    needed = int(error["why"].split(" bytes free, ")[1].split(" ")[0].replace(",", ""))
    assert needed >= 2_000_000
    assert "free " in error["do"] and written(paths) == ["trust.json"]
