"""Where the demo gets torch for CPUs: pip's configuration, else an index, else it says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.errors import HostError, IntegrityError
from airgap.events import silent
from airgap.format.types import Target
from bundler.demo.recipe import Place
from bundler.demo.torch_wheel import find_links
from bundler.workspace import Workspace
from tests.unit.fetch.server import Server, body, serving

WHEEL = "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl"
ON_PAGE = WHEEL.replace("+", "%2B")
DATA = b"a wheel"


@pytest.fixture
def index() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "pip"))
    target = Target(python="3.11", platform="x86_64-manylinux_2_35", accelerator="cpu")
    return Place(tmp_path / "demo", Workspace(tmp_path / "home"), target, 1, silent)


def page(index: Server, name: str = ON_PAGE, sha256: str | None = None) -> None:
    digest = sha256 or hashlib.sha256(DATA).hexdigest()
    others = "".join(
        f'<a href="/whl/{n}#sha256={"0" * 64}">x</a>'
        for n in (
            "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
            "torch-2.12.0%2Bcpu-cp311.whl",
        )
    )
    text = f'<html>{others}<a href="/whl/{name}#sha256={digest}">{name}</a></html>'
    index.pages["/cpu/torch/"] = body(text.encode(), kind="text/html")
    index.pages[f"/whl/{name}"] = body(DATA)


def test_what_pip_is_configured_with_comes_first(place: Place, tmp_path: Path) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / WHEEL).write_bytes(DATA)
    assert find_links(place, "http://127.0.0.1:1/cpu") == ()


def test_else_the_index_gives_the_one_wheel_by_its_digest(place: Place, index: Server) -> None:
    page(index)
    assert find_links(place, index.url("/cpu")) == ("wheels",)
    assert (place.folder / "wheels" / WHEEL).read_bytes() == DATA
    asked = len(index.asked)
    assert find_links(place, index.url("/cpu")) == ("wheels",)
    assert len(index.asked) == asked


def test_other_bytes_than_the_page_says_are_refused(place: Place, index: Server) -> None:
    page(index, sha256="1" * 64)
    with pytest.raises(IntegrityError) as caught:
        find_links(place, index.url("/cpu"))
    assert caught.value.exit_code == 3
    assert not (place.folder / "wheels").exists()


@pytest.mark.parametrize("other", ["cp312-cp312", "none"])
def test_where_no_source_has_it_the_small_demo_is_named(
    place: Place, index: Server, other: str
) -> None:
    if other != "none":
        page(index, ON_PAGE.replace("cp311-cp311", other))
    with pytest.raises(HostError) as caught:
        find_links(place, index.url("/cpu"))
    assert (caught.value.id, caught.value.exit_code) == ("demo.torch", 7)
    assert "make demo ENGINE=llama.cpp" in caught.value.do
    assert "Python 3.11" in caught.value.what
