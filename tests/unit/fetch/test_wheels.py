"""Locking wheels with the real uv: against PyPI, folders, and an index on loopback with faults."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import silent
from airgap.format.artifacts import LockedWheels
from airgap.format.request import WheelsRequest
from airgap.format.types import Target
from bundler.fetch.pylock import choose
from bundler.fetch.targets import target_tags
from bundler.fetch.wheels import lock_wheels
from bundler.workspace import Workspace
from tests.unit.fetch.server import Server, closed_port, status
from tests.unit.fetch.wheel_maker import make_wheel

TARGET = Target(python="3.11", platform="x86_64-manylinux_2_36", accelerator="cpu")


def lock(workspace: Workspace, *requirements: str, **more: Any) -> LockedWheels:
    request = WheelsRequest(requirements=requirements, **more)
    return lock_wheels(request, TARGET, workspace.home.parent, workspace, silent)


def test_a_wheel_of_pypi_is_pinned_by_url_digest_and_size(workspace: Workspace) -> None:
    (six,) = lock(workspace, "six==1.17.0").files
    assert str(six.path) == "six-1.17.0-py2.py3-none-any.whl"
    assert six.sha256 == "4721f391ed90541fddacab5acf947aa0d3dc7d27b2e1e8eda2be8970586c3274"
    assert six.size == 11050
    assert six.url is not None
    assert not workspace.store.blobs.exists()


def test_nothing_newer_than_asked_for_is_taken(workspace: Workspace) -> None:
    (six,) = lock(workspace, "six", newest="2019-11-05").files
    assert str(six.path).startswith("six-1.13.0-")  # uploaded on that very day


def test_the_target_decides_not_this_machine(workspace: Workspace) -> None:
    target = Target(python="3.12", platform="aarch64-manylinux_2_28", accelerator="cpu")
    request = WheelsRequest(requirements=("markupsafe==3.0.2",))
    (wheel,) = lock_wheels(request, target, workspace.home.parent, workspace, silent).files
    assert "cp312-cp312-manylinux" in str(wheel.path)
    assert "aarch64" in str(wheel.path)


def test_a_wheel_of_a_folder_is_taken_in_and_its_path_is_not_told(workspace: Workspace) -> None:
    wheel = make_wheel(workspace.home.parent / "folder", "tinywheel", "1.0+cpu")
    (file,) = lock(workspace, "tinywheel", find_links=("folder",)).files
    data = wheel.read_bytes()
    assert (file.sha256, file.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert str(file.path) == wheel.name
    assert file.url is None
    assert str(workspace.home.parent) not in file.to_bytes().decode()
    assert workspace.store.blob_path(file.sha256).read_bytes() == data


def test_an_index_without_sizes_is_fetched_at_lock(workspace: Workspace, index: Server) -> None:
    wheel = make_wheel(workspace.home.parent / "made", "tinywheel", "1.0")
    index.add_wheel(wheel)
    (file,) = lock(workspace, "tinywheel", index=(index.url("/simple"),)).files
    assert file.size == wheel.stat().st_size
    assert file.url == index.url(f"/files/{wheel.name}")
    assert workspace.store.has(file.sha256, file.size)


def test_a_password_of_an_index_is_not_in_the_lock(workspace: Workspace, index: Server) -> None:
    index.add_wheel(make_wheel(workspace.home.parent / "made", "tinywheel", "1.0"))
    url = index.url("/simple").replace("//", "//me:secret@")
    (file,) = lock(workspace, "tinywheel", index=(url,)).files
    assert "secret" not in file.to_bytes().decode()


def test_an_added_index_cannot_take_over_a_name_of_the_main_one(
    workspace: Workspace, index: Server
) -> None:
    index.add_wheel(make_wheel(workspace.home.parent / "made", "six", "99.0"))
    (six,) = lock(workspace, "six", index=(index.url("/simple"),)).files
    assert not str(six.path).startswith("six-99")


def test_overrides_and_constraints_reach_the_resolver(workspace: Workspace) -> None:
    make_wheel(workspace.home.parent / "folder", "tinywheel", "1.0", needs=("six>=99",))
    links = ("folder",)
    files = lock(workspace, "tinywheel", find_links=links, overrides=("six==1.16.0",)).files
    assert [str(f.path).split("-")[1] for f in files] == ["1.16.0", "1.0"]
    with pytest.raises(SourceError, match=r"source\.unsatisfiable"):
        lock(workspace, "six==1.17.0", constraints=("six<1.17",))


def test_a_wheel_that_is_not_what_its_index_says_is_refused(
    workspace: Workspace, index: Server
) -> None:
    wheel = make_wheel(workspace.home.parent / "made", "tinywheel", "1.0")
    index.add_wheel(wheel, digest="0" * 64)
    with pytest.raises(IntegrityError) as caught:
        lock(workspace, "tinywheel", index=(index.url("/simple"),))
    assert caught.value.id == "source.digest"
    assert not any(workspace.store.blobs.iterdir())


def test_an_unreachable_index_is_refused_with_uvs_words(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{closed_port()}/simple")
    with pytest.raises(SourceError) as caught:
        lock(workspace, "six")
    assert caught.value.id == "source.unreachable"
    assert "Connection refused" in caught.value.why


def test_an_index_that_answers_500_is_refused(
    workspace: Workspace, index: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url("/simple"))
    index.pages["/simple/six/"] = status(500)
    with pytest.raises(SourceError) as caught:
        lock(workspace, "six")
    assert caught.value.id == "source.unreachable"
    assert "500" in caught.value.why


def test_a_version_that_does_not_exist_is_named(workspace: Workspace) -> None:
    with pytest.raises(SourceError) as caught:
        lock(workspace, "six==99")
    assert caught.value.id == "source.unsatisfiable"
    assert "six==99" in caught.value.why


def test_a_package_that_is_only_source_is_named(workspace: Workspace) -> None:
    with pytest.raises(SourceError) as caught:
        lock(workspace, "docopt==0.6.2")
    assert caught.value.id == "source.no-wheel"
    assert "docopt==0.6.2" in caught.value.what


@pytest.mark.parametrize(
    "text",
    [
        "-r /etc/hosts",
        "--index-url http://127.0.0.1:9/simple",
        "-e .",
        "./folder",
        "six=>1",
        "six @ https://example.invalid/six-1.0-py3-none-any.whl",
        "git+https://example.invalid/six",
    ],
)
def test_what_is_no_plain_requirement_never_reaches_the_resolver(
    workspace: Workspace, text: str
) -> None:
    with pytest.raises(UsageError, match=r"request\.requirement"):
        lock(workspace, text)
    assert not workspace.cache.exists()


def test_requirements_that_markers_exclude_are_refused(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="ask for nothing"):
        lock(workspace, "six; python_version < '3'")


def test_a_platform_the_resolver_does_not_know_is_refused(workspace: Workspace) -> None:
    target = Target(python="3.11", platform="x86_64-manylinux_2_29", accelerator="cpu")
    request = WheelsRequest(requirements=("six",))
    with pytest.raises(UsageError, match=r"request\.platform"):
        lock_wheels(request, target, workspace.home.parent, workspace, silent)


def test_a_folder_of_wheels_that_is_not_there_is_refused(workspace: Workspace) -> None:
    with pytest.raises(SourceError, match=r"source\.missing"):
        lock(workspace, "six", find_links=("nowhere",))


def pylock(*filenames: str) -> str:
    wheels = ",".join(
        f'{{url="https://example.invalid/{n}",size=1,hashes={{sha256="{"0" * 64}"}}}}'
        for n in filenames
    )
    return (
        'lock-version = "1.0"\ncreated-by = "test"\n[[packages]]\nname = "a"\n'
        f'version = "1"\nwheels = [{wheels}]\n'
    )


def test_of_several_wheels_the_targets_favourite_is_chosen() -> None:
    many = (
        "a-1-py3-none-any.whl",
        "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
        "a-1-cp312-cp312-manylinux_2_28_x86_64.whl",
        "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
    )
    (chosen,) = choose(pylock(*many), TARGET, Path("."))
    assert chosen.filename == "a-1-cp311-cp311-manylinux_2_28_x86_64.whl"


def test_every_package_without_a_fitting_wheel_is_named() -> None:
    with pytest.raises(SourceError) as caught:
        choose(pylock("a-1-cp310-cp310-manylinux_2_28_x86_64.whl"), TARGET, Path("."))
    assert caught.value.id == "source.no-wheel"
    assert "a 1" in caught.value.why


@pytest.mark.parametrize("text", ["not toml", 'lock-version = "9.0"', pylock("a-1.whl")])
def test_a_lock_that_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match=r"source\.pylock"):
        choose(text, TARGET, Path("."))


def test_the_tags_of_a_target_are_those_of_its_glibc() -> None:
    tags = {str(t) for t in target_tags(TARGET)}
    assert "cp311-cp311-manylinux_2_36_x86_64" in tags
    assert "cp38-abi3-manylinux2014_x86_64" in tags
    assert "py3-none-any" in tags
    assert "cp311-cp311-manylinux_2_37_x86_64" not in tags
