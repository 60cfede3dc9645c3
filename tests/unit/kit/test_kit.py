"""The folder that is carried to a host first, and the sheet that travels on another way."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import tomllib

from airgap import fsio
from airgap.errors import IntegrityError, SealiftError, SourceError, UsageError
from bundler.fetch import resolver
from bundler.pack import kit, pyz
from bundler.pack.kit import build_kit
from tests.unit.fetch.server import serving
from tests.unit.fetch.wheel_maker import make_wheel

_NAMES = {kit.PYZ, kit.INSTALL, kit.UV, kit.ROOT, kit.README, kit.SHEET}


@pytest.fixture(autouse=True)
def small_uv(wheels: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for uv's 38 MB, once the real one brought the wheels."""
    path = tmp_path / "bin" / "uv"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    monkeypatch.setattr(resolver, "find_uv", lambda: str(path))
    return path


def _tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mode) for p in folder.iterdir()}


def _sha256sum(folder: Path) -> int:
    argv = ["sha256sum", "--check", "--strict", "--quiet", kit.SHEET]
    return subprocess.run(argv, cwd=folder, check=False, capture_output=True).returncode


def test_same_inputs_give_the_same_kit(cache: Path, tmp_path: Path) -> None:
    build_kit(tmp_path / "a", b"root\n", cache=cache)
    before = os.umask(0o077)
    try:
        build_kit(tmp_path / "b", b"root\n", cache=cache)
    finally:
        os.umask(before)
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")
    assert set(_tree(tmp_path / "a")) == _NAMES


def test_the_sheet_passes_sha256sum_and_names_all_that_is_run_or_trusted(
    cache: Path, tmp_path: Path
) -> None:
    made = build_kit(tmp_path / "kit", b"root\n", cache=cache)
    assert _sha256sum(made.folder) == 0
    names = [line.split("  ")[1] for line in made.sheet.read_text().splitlines()]
    assert names == [kit.PYZ, kit.INSTALL, kit.ROOT, kit.UV]
    assert os.access(made.pyz, os.X_OK)


@pytest.mark.parametrize("name", [kit.PYZ, kit.INSTALL, kit.ROOT, kit.UV])
def test_one_changed_byte_in_the_kit_fails_the_sheet(
    name: str, cache: Path, tmp_path: Path
) -> None:
    made = build_kit(tmp_path / "kit", b"root\n", cache=cache)
    data = bytearray((made.folder / name).read_bytes())
    data[0] ^= 1
    (made.folder / name).write_bytes(data)
    assert _sha256sum(made.folder) == 1


def test_without_a_trust_repository_the_kit_has_no_root(cache: Path, tmp_path: Path) -> None:
    made = build_kit(tmp_path / "kit", None, cache=cache)
    assert set(_tree(made.folder)) == _NAMES - {kit.ROOT}
    assert kit.ROOT not in made.sheet.read_text()
    assert "Get root.json" in (made.folder / kit.README).read_text()


def test_an_older_kit_is_replaced_and_its_root_does_not_stay(cache: Path, tmp_path: Path) -> None:
    build_kit(tmp_path / "kit", b"old root\n", cache=cache)
    (tmp_path / "kit" / f"{fsio.TEMP_PREFIX}left").write_bytes(b"of a killed run")
    build_kit(tmp_path / "kit", None, cache=cache)
    assert set(_tree(tmp_path / "kit")) == _NAMES - {kit.ROOT}
    assert _sha256sum(tmp_path / "kit") == 0


def test_a_folder_with_other_files_is_refused_and_untouched(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb" / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(UsageError) as e:
        build_kit(tmp_path / "usb", None, cache=cache)
    assert e.value.id == "kit.not-empty"
    assert [p.name for p in (tmp_path / "usb").iterdir()] == ["holiday.jpg"]


def test_a_write_that_fails_leaves_no_sheet_and_the_next_run_finishes(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_kit(tmp_path / "kit", b"old\n", cache=cache)
    real = fsio.write

    def full(path: Path, data: bytes, mode: int = 0o644) -> None:
        if path.name == kit.ROOT:
            raise fsio.wrap_os_error(OSError(28, "No space left on device"), f"writing {path}")
        real(path, data, mode)

    monkeypatch.setattr(fsio, "write", full)
    with pytest.raises(SealiftError, match=r"disk\.full"):
        build_kit(tmp_path / "kit", b"new\n", cache=cache)
    assert not (tmp_path / "kit" / kit.SHEET).exists()
    monkeypatch.undo()
    monkeypatch.setattr(resolver, "find_uv", lambda: str(tmp_path / "bin" / "uv"))
    build_kit(tmp_path / "kit", b"new\n", cache=cache)
    assert _sha256sum(tmp_path / "kit") == 0


def test_the_real_uv_is_put_in(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uv

    monkeypatch.setattr(resolver, "find_uv", uv.find_uv_bin)
    made = build_kit(tmp_path / "kit", None, cache=cache)
    argv = [str(made.folder / kit.UV), "--version"]
    done = subprocess.run(argv, env={}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("uv ")


def test_no_uv_anywhere_is_a_source_error(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "find_uv", lambda: "uv")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    with pytest.raises(SourceError) as e:
        build_kit(tmp_path / "kit", None, cache=cache)
    assert e.value.id == "source.uv"
    assert not (tmp_path / "kit").exists()


def test_a_wheel_that_changed_in_the_cache_is_refused(cache: Path, tmp_path: Path) -> None:
    kit.pinned_wheels(cache / "kit")
    shutil.copytree(cache / "kit" / "store", tmp_path / "kit" / "store")
    digest = next(iter(kit.pins().values()))
    blob = tmp_path / "kit" / "store" / "blobs" / "sha256" / digest
    blob.chmod(0o644)
    blob.write_bytes(blob.read_bytes() + b"\0")
    with pytest.raises(IntegrityError) as e:
        kit.pinned_wheels(tmp_path / "kit")
    assert e.value.id == "kit.pin"


def test_an_index_that_serves_another_wheel_of_that_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import uv

    monkeypatch.setattr(resolver, "find_uv", uv.find_uv_bin)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with serving() as index:
        for requirement in kit.pins():
            name, _, version = requirement.partition("==")
            index.add_wheel(make_wheel(tmp_path / "evil", name, version))
        monkeypatch.setenv("PIP_INDEX_URL", index.url("/simple"))
        with pytest.raises(IntegrityError) as e:
            kit.pinned_wheels(tmp_path / "kit")
    assert e.value.id == "kit.pin"


def test_pins_are_those_of_the_project() -> None:
    data = tomllib.loads(Path(kit.__file__).parents[2].joinpath("pyproject.toml").read_text())
    pinned = [r.split("==") for r in kit.pins()]
    assert tuple(sorted(name for name, _ in pinned)) == pyz.LIBRARIES
    for name, version in pinned:
        exact = [d for d in data["project"]["dependencies"] if d.startswith(f"{name}==")]
        assert exact in ([], [f"{name}=={version}"])
