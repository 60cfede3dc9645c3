"""`sealift store`: what nothing needs goes, what is needed stays, what is damaged is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from airgap.errors import IntegrityError, SealiftError
from airgap.events import silent
from airgap.format.request import ModelRequest, Request
from airgap.format.types import Target
from bundler import storage
from bundler.cli import cli
from bundler.digests import git_file, git_names, keep_blake3, keep_git
from bundler.lock import make_lock
from bundler.pack import kit
from bundler.workspace import Workspace
from tests.unit.lock.test_local import GGUF

TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A home with one lock that needs one blob."""
    (tmp_path / "m.gguf").write_bytes(GGUF)
    made = Workspace(tmp_path / "home")
    request = Request(
        name="one",
        version="1",
        summary="One",
        target=TARGET,
        model=(ModelRequest(name="m", path="m.gguf"),),
    )
    make_lock(request, base=tmp_path, workspace=made, now=1_790_000_000)
    return made


KEY = f"git-{'a' * 40}-5"


def needed(workspace: Workspace) -> str:
    return os.listdir(workspace.store.blobs)[0]


def run(workspace: Workspace, *argv: str) -> Result:
    return CliRunner().invoke(cli, ["--home", str(workspace.home), "store", *argv])


def test_gc_shows_first_and_removes_only_what_nothing_names(workspace: Workspace) -> None:
    keep = needed(workspace)
    stray = workspace.store.add_bytes(b"stray").sha256
    for blob in (keep, stray):
        keep_blake3(workspace.store, blob, "0" * 64)
    keep_git(workspace.store, {KEY: keep})
    partial = workspace.store.root / "partial"
    partial.mkdir()
    for name in (f"{keep}.part", f"{keep}.journal", f"{'0' * 64}.part", "lock"):
        (partial / name).write_bytes(b"x")
    shown = run(workspace, "gc")
    assert shown.exit_code == 0
    assert stray in shown.output
    assert keep not in shown.output
    assert workspace.store.blob_path(stray).exists()
    assert run(workspace, "gc", "--remove").exit_code == 0
    assert os.listdir(workspace.store.blobs) == [keep]
    assert os.listdir(workspace.store.root / "blake3") == [keep]
    assert git_names(workspace.store) == {KEY: keep}
    assert sorted(os.listdir(partial)) == sorted([f"{keep}.part", f"{keep}.journal", "lock"])


def test_gc_leaves_the_wheels_of_the_kit(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = workspace.cache / "kit"
    sha256 = Workspace(place).store.add_bytes(b"a wheel").sha256
    stray = workspace.store.add_bytes(b"a wheel").sha256
    monkeypatch.setattr(kit, "pins", lambda: {"one==1": sha256})
    assert run(workspace, "gc", "--remove").exit_code == 0
    assert not workspace.store.blob_path(stray).exists()
    assert kit.pinned_wheels(place) == [b"a wheel"]


def test_gc_removes_nothing_when_a_lock_cannot_be_read(workspace: Workspace) -> None:
    stray = workspace.store.add_bytes(b"stray").sha256
    broken = workspace.build("two", "1").lock
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"{}\n")
    result = run(workspace, "gc", "--remove")
    assert isinstance(result.exception, IntegrityError)
    assert result.exception.id == "store.unreadable"
    assert workspace.store.blob_path(stray).exists()


def test_du_says_what_a_lock_needs(workspace: Workspace) -> None:
    assert [(s.name, s.files, s.size, s.alone) for s in storage.shares(workspace)] == [
        ("builds/one/1/lock.json", 1, len(GGUF), len(GGUF))
    ]
    assert "builds/one/1/lock.json: 1 files" in run(workspace, "du").output


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_verify_names_damaged_blobs_and_moves_them_away(workspace: Workspace, how: str) -> None:
    good = workspace.store.add_bytes(b"good").sha256
    bad = needed(workspace)
    path = workspace.store.blob_path(bad)
    os.chmod(path, 0o644)
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data if how == "flipped" else data[:-1])
    result = run(workspace, "verify")
    assert isinstance(result.exception, SealiftError)
    assert (result.exception.id, result.exception.exit_code) == ("store.damaged", 3)
    assert bad in result.output
    assert not path.exists()
    assert (workspace.store.root / storage.DAMAGED / bad).exists()
    assert workspace.store.blob_path(good).exists()
    assert storage.verify(workspace.store, silent) == []


def test_a_torn_git_name_is_none_and_spoils_no_other(workspace: Workspace) -> None:
    store, other = workspace.store, f"git-{'b' * 40}-6"
    keep_git(store, {KEY: "0" * 64})
    keep_git(store, {KEY: "1" * 64})
    file = git_file(store)
    file.write_bytes(file.read_bytes() + f"{other} 2222".encode())
    assert git_names(store) == {KEY: "1" * 64}
    keep_git(store, {other: "3" * 64})
    assert git_names(store) == {KEY: "1" * 64, other: "3" * 64}


def test_gc_drops_git_names_when_nothing_names_their_blobs(workspace: Workspace) -> None:
    keep_git(workspace.store, {KEY: "0" * 64})
    assert run(workspace, "gc", "--remove").exit_code == 0
    assert not git_file(workspace.store).exists()
