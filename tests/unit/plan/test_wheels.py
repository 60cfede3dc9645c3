"""Wheels in a plan: sized where they lie, and not one byte of them fetched or taken in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airgap.events import silent
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.plan import wheels
from bundler.workspace import Workspace
from tests.unit.fetch.server import Server, serving, status
from tests.unit.fetch.wheel_maker import make_wheel

TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    return Workspace(tmp_path / "home")


def blobs(workspace: Workspace) -> list[Path]:
    folder = workspace.store.blobs
    return list(folder.rglob("*")) if folder.exists() else []


def test_wheels_of_a_folder_stay_there(tmp_path: Path, workspace: Workspace) -> None:
    wheel = make_wheel(tmp_path / "wheels", "tinywheel", "1.0")
    request = WheelsRequest(requirements=("tinywheel",), find_links=("wheels",))
    part = wheels.look(request, TARGET, tmp_path, workspace, silent)
    size = wheel.stat().st_size
    assert (part.files, part.bytes, part.here, part.unknown) == (1, size, size, 0)
    assert blobs(workspace) == []


@pytest.mark.parametrize("there", [True, False])
def test_a_length_that_the_lock_does_not_tell_is_asked_of_the_server(
    tmp_path: Path, workspace: Workspace, there: bool
) -> None:
    wheel = make_wheel(tmp_path, "tinywheel", "1.0")
    with serving() as server:
        server.add_wheel(wheel)
        if not there:
            server.pages[f"/files/{wheel.name}"] = status(404)
        lock = tmp_path / "pylock.toml"
        lock.write_text(pylock(server, wheel))
        request = WheelsRequest(pylock="pylock.toml")
        part = wheels.look(request, TARGET, tmp_path, workspace, silent)
    size = wheel.stat().st_size if there else 0
    assert (part.files, part.bytes, part.here, part.unknown) == (1, size, 0, 0 if there else 1)
    assert blobs(workspace) == []


def pylock(server: Server, wheel: Path) -> str:
    """As PEP 751 has it, without the size, which is optional there."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return (
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "tinywheel"\n'
        f'version = "1.0"\nwheels = [{{ url = "{server.url(f"/files/{wheel.name}")}", '
        f'hashes = {{ sha256 = "{digest}" }} }}]\n'
    )
