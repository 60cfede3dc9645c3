"""Removing: what goes, what stays, on a full disk, and after a kill at every step."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airgap import fsio
from airgap.errors import HostError
from airgap.format.manifest import Manifest
from airgap.host import inventory, ledger, remove, stage
from airgap.host.installed import verify_installed
from airgap.host.paths import HostPaths
from tests.unit.host.parts import UV, digest_of, make_manifest


def fine(_manifest: Manifest, _digest: str) -> None:
    """A judge that lets everything serve."""


def put(paths: HostPaths, version: str) -> Manifest:
    manifest = make_manifest(paths, version, models=(f"{version}.gguf", "shared.gguf.txt"))
    stage.stage(paths, manifest, digest_of(manifest), uv=UV)
    return manifest


def served(paths: HostPaths, *manifests: Manifest) -> None:
    """The ledger and the link as after switches in that order."""
    for m in manifests:
        data = {"name": m.name, "version": m.version, "manifest": digest_of(m)}
        ledger.append(paths.ledger, "switch", data)
        fsio.symlink(m.version, paths.current_link(m.name))


def blobs(paths: HostPaths) -> set[str]:
    return {p.name for p in (paths.store / "blobs/sha256").iterdir()}


def events(paths: HostPaths) -> list[str]:
    return [e.event for e in ledger.read(paths.ledger).entries]


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    """1, 2 and 3 served in that order."""
    host = HostPaths(tmp_path / "host")
    served(host, put(host, "1"), put(host, "2"), put(host, "3"))
    return host


def test_gc_keeps_what_is_current_and_one_way_back(paths: HostPaths) -> None:
    before = blobs(paths)
    assert remove.gc(paths, fine, dry_run=True).deployments == ("tiny 1",)
    assert blobs(paths) == before
    done = remove.gc(paths, fine)
    assert (done.deployments, done.blobs) == (("tiny 1",), 1)
    assert [h.version for h in inventory.holdings(paths)] == ["2", "3"]
    verify_installed_but_audit(paths)


def verify_installed_but_audit(paths: HostPaths) -> None:
    """There is no trust in these hosts, so that the audit alone cannot be."""
    with pytest.raises(Exception, match=r"installed\.changed") as e:
        verify_installed(paths)
    assert e.value.why.count("\n") == 0 and "ledger" in e.value.why  # type: ignore[attr-defined]


def test_gc_goes_back_behind_a_revoked_version(paths: HostPaths) -> None:
    def revoked(manifest: Manifest, _digest: str) -> None:
        if manifest.version == "2":
            raise HostError("trust.revoked", "2", why="revoked", do="nothing")

    assert remove.gc(paths, revoked).deployments == ("tiny 2",)


def test_uninstall_leaves_blobs_and_purge_leaves_only_what_others_need(paths: HostPaths) -> None:
    before = blobs(paths)
    remove.uninstall(paths, "tiny", "1")
    assert blobs(paths) == before
    remove.uninstall(paths, "tiny", "2", purge=True)
    assert len(before - blobs(paths)) == 1
    with pytest.raises(HostError) as e:
        remove.uninstall(paths, "tiny", "3", purge=True)
    assert e.value.id == "host.serving"
    remove.uninstall(paths, "tiny", "3", purge=True, stop=True)
    assert not paths.name_folder("tiny").exists()
    remove.gc(paths, fine)
    assert blobs(paths) == set()


def die_after(call: Callable[..., object], times: int) -> Callable[..., object]:
    left = [times]

    def dying(*args: object, **kwargs: object) -> object:
        done = call(*args, **kwargs)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    return dying


STEPS = [(ledger, "append", 1), (os, "unlink", 1), (os, "unlink", 2), (os, "rmdir", 2)]
STEPS += [(fsio, "fsync_dir", n) for n in (1, 2, 4)]


@pytest.mark.parametrize(
    ("module", "function", "times"), STEPS, ids=[f"{f}-{n}" for _, f, n in STEPS]
)
def test_killed_purge_is_finished_by_the_same_call(
    paths: HostPaths, module: object, function: str, times: int
) -> None:
    child = os.fork()
    if child == 0:
        setattr(module, function, die_after(getattr(module, function), times))
        try:
            remove.uninstall(paths, "tiny", "1", purge=True)
        finally:
            os._exit(3)
    _, how = os.waitpid(child, 0)
    assert os.WTERMSIG(how) == signal.SIGKILL
    remove.uninstall(paths, "tiny", "1", purge=True)
    assert [h.version for h in inventory.holdings(paths)] == ["2", "3"]
    assert not paths.deployment("tiny", "1").folder.exists()
    assert blobs(paths) == inventory.used(inventory.holdings(paths))
    assert events(paths).count("uninstall") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("not root: a small disk is a tmpfs, and mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("how", ["gc", "uninstall"])
def test_full_disk_can_be_emptied_and_the_ledger_still_tells(small_disk: Path, how: str) -> None:
    paths = HostPaths(small_disk / "host")
    served(paths, put(paths, "1"), put(paths, "2"), put(paths, "3"))
    with open(small_disk / "filler", "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"x" * 4096)
        except OSError:
            os.fsync(f.fileno())
    # The page that the ledger still has room in is used up as well.
    ledger_page = paths.ledger.stat().st_size
    assert ledger_page < 4096
    if how == "gc":
        remove.gc(paths, fine)
    else:
        remove.uninstall(paths, "tiny", "1", purge=True)
    assert [h.version for h in inventory.holdings(paths)] == ["2", "3"]
    assert "uninstall" in events(paths)
