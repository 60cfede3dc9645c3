"""Which index is asked first: the order is a defence, so it is tested as one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airgap.errors import UsageError
from bundler.fetch.pip_config import PYPI, read_pip, sources


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own and no system-wide folder of configuration."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg")}


@pytest.fixture(autouse=True)
def no_machine_wide_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """/etc/pip.conf and /etc/uv of the machine that runs the tests must not decide them."""
    from bundler.fetch import pip_config

    pip_files, uv_files = pip_config._pip_files, pip_config._uv_files
    monkeypatch.setattr(
        pip_config, "_pip_files", lambda e, p: (f for f in pip_files(e, p) if not _etc(f))
    )
    monkeypatch.setattr(pip_config, "_uv_files", lambda e: [f for f in uv_files(e) if not _etc(f)])


def _etc(path: Path) -> bool:
    return path.parts[1:2] == ("etc",)


def user_file(tmp_path: Path, text: str, tool: str = "pip/pip.conf") -> Path:
    path = tmp_path / ".config" / tool
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_configuration_pypi_is_the_only_index(
    environment: dict[str, str], tmp_path: Path
) -> None:
    assert sources([], [], environment, str(tmp_path)).arguments() == ["--default-index", PYPI]


def test_an_extra_index_is_asked_after_the_main_one(
    environment: dict[str, str], tmp_path: Path
) -> None:
    user_file(tmp_path, "[global]\nextra-index-url = http://b/simple\n    http://c/simple\n")
    found = sources(["http://d/simple"], [], environment, str(tmp_path))
    assert found.indexes == (PYPI, "http://b/simple", "http://c/simple", "http://d/simple")
    assert found.arguments()[:2] == ["--index", PYPI]
    assert found.arguments()[-2:] == ["--default-index", "http://d/simple"]


def test_pips_main_index_replaces_pypi_everywhere(
    environment: dict[str, str], tmp_path: Path
) -> None:
    user_file(tmp_path, "[global]\nindex_url = http://mirror/simple\nfind-links = ~/wheels\n")
    found = sources(["http://d/simple"], ["/more"], environment, str(tmp_path))
    assert found.indexes == ("http://mirror/simple", "http://d/simple")
    assert found.find_links == (os.path.expanduser("~/wheels"), "/more")


def test_the_environment_beats_files_and_site_beats_user(
    environment: dict[str, str], tmp_path: Path
) -> None:
    user_file(tmp_path, "[global]\nindex-url = http://user/\n[install]\nfind-links = /i\n")
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    (prefix / "pip.conf").write_text("[global]\nindex-url = http://site/\n")
    assert read_pip(environment, str(prefix)).index_url == "http://site/"
    environment["PIP_INDEX_URL"] = "http://environment/"
    found = read_pip(environment, str(prefix))
    assert found.index_url == "http://environment/"
    assert found.find_links == ("/i",)


def test_a_named_pip_file_replaces_the_users(environment: dict[str, str], tmp_path: Path) -> None:
    user_file(tmp_path, "[global]\nextra-index-url = http://user/\n")
    named = tmp_path / "named.conf"
    named.write_text("[global]\nno-index = true\n")
    environment["PIP_CONFIG_FILE"] = str(named)
    found = sources([], [], environment, str(tmp_path))
    assert found.arguments() == ["--no-index"]
    environment["PIP_CONFIG_FILE"] = os.devnull
    assert sources([], [], environment, str(tmp_path)).indexes == (PYPI,)


def test_uvs_own_configuration_is_kept(environment: dict[str, str], tmp_path: Path) -> None:
    user_file(tmp_path, "[global]\nextra-index-url = http://b/\n")
    user_file(
        tmp_path, '[[index]]\nname = "m"\nurl = "http://uv-mirror/"\ndefault = true\n', "uv/uv.toml"
    )
    assert sources([], [], environment, str(tmp_path)).indexes == ("http://uv-mirror/", "http://b/")
    environment |= {
        "UV_DEFAULT_INDEX": "corp=http://corp/?a=b",
        "UV_INDEX": "x=http://x/ http://y/",
    }
    environment["UV_FIND_LINKS"] = "/one,/two"
    found = sources([], [], environment, str(tmp_path))
    assert found.indexes == ("http://x/", "http://y/", "http://corp/?a=b", "http://b/")
    assert found.find_links == ("/one", "/two")


@pytest.mark.parametrize("tool", ["pip/pip.conf", "uv/uv.toml"])
def test_a_broken_configuration_is_refused_not_skipped(
    environment: dict[str, str], tmp_path: Path, tool: str
) -> None:
    user_file(tmp_path, "[[broken\nno section = here", tool)
    with pytest.raises(UsageError, match=r"source\.config"):
        sources([], [], environment, str(tmp_path))
