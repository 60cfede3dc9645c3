"""Staging: whole or not at all, the approved bytes only, finished by the same call after a kill."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from airgap import fsio
from airgap.engines import llama_cpp
from airgap.errors import HostError, IntegrityError, SealiftError
from airgap.events import Event, Line
from airgap.format.manifest import Manifest
from airgap.format.types import Target
from airgap.host import deployment, interpreter, stage, venv
from airgap.host.paths import HostPaths
from airgap.store import Store
from tests.unit.host.parts import UV, digest_of, make_manifest, wheel_bytes

INSTALLERS = pytest.mark.parametrize("uv", [UV, None], ids=["uv", "pip"])


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path / "host")


@pytest.fixture
def no_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")


def put(paths: HostPaths, manifest: Manifest, uv: Path | None = UV) -> deployment.Deployment:
    return stage.stage(paths, manifest, digest_of(manifest), uv=uv)


def snapshot(folder: Path) -> dict[str, int]:
    return {str(p): os.lstat(p).st_mtime_ns for p in folder.rglob("*")}


@INSTALLERS
def test_staged_deployment_is_links_of_the_store_and_an_environment(
    paths: HostPaths, uv: Path | None, no_uv: None
) -> None:
    manifest = make_manifest(paths)
    done = put(paths, manifest, uv)
    model = done.paths.model / "m.gguf"
    blob = Store(paths.store).blob_path(manifest.model_to_serve().files[0].sha256)
    assert os.stat(model).st_ino == os.stat(blob).st_ino
    assert os.stat(model).st_mode & 0o777 == 0o444
    program = llama_cpp.find_program(done.paths.venv)
    assert program.is_relative_to(paths.venvs)
    assert list(done.paths.venv.glob("lib/*/site-packages/tiny_engine/__pycache__/*.pyc"))
    assert done.record.installer.startswith("uv " if uv else "pip")
    assert list(done.paths.tmp.iterdir()) == []
    assert done.manifest == manifest and done.digest == digest_of(manifest)


def test_nothing_is_written_outside_the_root(paths: HostPaths, tmp_path: Path) -> None:
    put(paths, make_manifest(paths))
    assert [p.name for p in tmp_path.iterdir()] == ["host"]


def test_staging_again_reuses_the_complete_one(paths: HostPaths) -> None:
    manifest = make_manifest(paths)
    folder = put(paths, manifest).paths.folder
    before = snapshot(folder)
    events: list[Event] = []
    stage.stage(paths, manifest, digest_of(manifest), events.append, uv=UV)
    assert snapshot(folder) == before
    assert events == [Line("stage", "tiny 1 is staged already")]


def test_same_version_with_another_manifest_is_refused(paths: HostPaths) -> None:
    first = put(paths, make_manifest(paths))
    other = make_manifest(paths, models=("other.gguf",))
    with pytest.raises(HostError) as e:
        put(paths, other)
    assert e.value.id == "host.version-taken"
    assert deployment.load(paths, "tiny", "1") == first


STEPS = {
    "manifest written": (fsio, "write"),
    "model linked": (stage, "link_files"),
    "environment built": (venv, "build"),
    "sealing": (stage, "_seal"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_stage_is_finished_by_the_same_call(paths: HostPaths, step: str, when: str) -> None:
    manifest = make_manifest(paths)
    child = os.fork()
    if child == 0:
        module, function = STEPS[step]
        real = getattr(module, function)

        def dying(*args: object, **kwargs: object) -> None:
            if when == "after":
                real(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(module, function, dying)
        try:
            put(paths, manifest)
        finally:
            os._exit(3)
    _, how = os.waitpid(child, 0)
    assert os.WTERMSIG(how) == signal.SIGKILL
    done = put(paths, manifest)
    assert deployment.load(paths, "tiny", "1") == done
    assert llama_cpp.find_program(done.paths.venv).exists()


def test_incomplete_deployment_is_not_staged(paths: HostPaths) -> None:
    done = put(paths, make_manifest(paths))
    done.paths.record.unlink()
    with pytest.raises(HostError) as e:
        deployment.load(paths, "tiny", "1")
    assert e.value.id == "host.not-staged"


def test_manifest_other_than_the_verified_one_is_refused(paths: HostPaths) -> None:
    with pytest.raises(IntegrityError) as e:
        stage.stage(paths, make_manifest(paths), "0" * 64, uv=UV)
    assert e.value.id == "deployment.digest"
    assert not paths.deployments.exists()


def test_version_named_like_the_link_is_refused(paths: HostPaths) -> None:
    with pytest.raises(HostError) as e:
        put(paths, make_manifest(paths, "current"))
    assert e.value.id == "host.version-reserved"


def test_blob_missing_from_the_store_is_refused(paths: HostPaths) -> None:
    manifest = make_manifest(paths)
    os.unlink(Store(paths.store).blob_path(manifest.model_to_serve().files[0].sha256))
    with pytest.raises(IntegrityError) as e:
        put(paths, manifest)
    assert e.value.id == "store.missing"


@INSTALLERS
def test_wheel_changed_in_the_store_is_refused(
    paths: HostPaths, uv: Path | None, no_uv: None
) -> None:
    manifest = make_manifest(paths)
    blob = Store(paths.store).blob_path(manifest.wheels_to_serve().files[0].sha256)
    data = bytearray(blob.read_bytes())
    at = data.index(b"exit 3")
    data[at + 5 : at + 6] = b"4"
    os.chmod(blob, 0o644)
    blob.write_bytes(data)
    with pytest.raises(IntegrityError) as e:
        put(paths, manifest, uv)
    assert (e.value.id, e.value.exit_code) == ("venv.hash-mismatch", 3)
    assert deployment.read_record(paths.deployment("tiny", "1")) is None


@INSTALLERS
def test_wheel_for_another_platform_is_refused(
    paths: HostPaths, uv: Path | None, no_uv: None
) -> None:
    name = "tiny_engine-1.0-cp35-cp35m-win_amd64.whl"
    wheel = wheel_bytes("cp35-cp35m-win_amd64")
    with pytest.raises(HostError) as e:
        put(paths, make_manifest(paths, wheel=wheel, wheel_name=name), uv)
    assert (e.value.id, e.value.exit_code) == ("host.wheel-unfit", 7)


def test_python_that_is_not_here_is_refused(paths: HostPaths) -> None:
    target = Target(python="3.99", platform="x86_64-manylinux_2_17", accelerator="cpu")
    with pytest.raises(HostError) as e:
        put(paths, make_manifest(paths, target=target))
    assert (e.value.id, e.value.exit_code) == ("host.python", 7)
    assert not paths.deployments.exists()


def test_wrapper_on_path_that_does_not_run_is_not_a_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "python3.99"
    wrapper.write_text("#!/bin/sh\nexit 127\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError) as e:
        interpreter.find("3.99")
    assert f"{wrapper} (does not run)" in e.value.why


def test_python_without_venv_names_the_debian_package(tmp_path: Path, paths: HostPaths) -> None:
    python = tmp_path / "python3.12"
    python.write_text("#!/bin/sh\necho 'ensurepip is not available' >&2\nexit 1\n")
    python.chmod(0o755)
    manifest = make_manifest(paths)
    place = paths.deployment("tiny", "1")
    pip = venv.Installer(None, "pip")
    with pytest.raises(HostError) as e:
        venv.build(place, manifest.wheels_to_serve(), python, pip, lambda _: None)
    assert e.value.id == "host.venv-missing"
    assert "python3.12-venv" in e.value.do


def test_uv_that_is_not_there_is_refused(paths: HostPaths, no_uv: None) -> None:
    with pytest.raises(HostError) as e:
        venv.choose_installer(paths.root / "uv")
    assert e.value.id == "host.uv-missing"


def test_uv_of_the_kit_is_found_beside_the_program(tmp_path: Path, no_uv: None) -> None:
    os.symlink(UV, tmp_path / "uv")
    found = venv.choose_installer(beside=tmp_path)
    assert found.uv == tmp_path / "uv" and found.label.startswith("uv ")


def damage_manifest(done: deployment.Deployment) -> None:
    data = done.paths.manifest.read_bytes().replace(b'"summary":""', b'"summary":"x"')
    fsio.write(done.paths.manifest, data)


def drop_model(done: deployment.Deployment) -> None:
    os.unlink(done.paths.model / "m.gguf")


def link_model(done: deployment.Deployment) -> None:
    drop_model(done)
    os.symlink("/dev/zero", done.paths.model / "m.gguf")


def shorten_model(done: deployment.Deployment) -> None:
    drop_model(done)
    (done.paths.model / "m.gguf").write_bytes(b"GGUF")


def spoil_record(done: deployment.Deployment) -> None:
    fsio.write(done.paths.record, b"{}\n")


@pytest.mark.parametrize(
    "damage", [damage_manifest, drop_model, link_model, shorten_model, spoil_record]
)
def test_deployment_changed_after_staging_is_refused(paths: HostPaths, damage: object) -> None:
    done = put(paths, make_manifest(paths))
    assert callable(damage)
    damage(done)
    with pytest.raises(IntegrityError) as e:
        deployment.load(paths, "tiny", "1")
    assert e.value.id == "deployment.damaged"


def test_full_disk_while_staging_is_named_and_resumed(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(paths)

    def full(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "link", full)
        with pytest.raises(SealiftError) as e:
            put(paths, manifest)
    assert (e.value.id, e.value.exit_code) == ("disk.full", 8)
    assert put(paths, manifest).manifest == manifest


def test_manifest_of_another_release_is_another_manifest(paths: HostPaths) -> None:
    manifest = make_manifest(paths)
    put(paths, manifest)
    with pytest.raises(HostError):
        put(paths, replace(manifest, release=2))
    assert deployment.load(paths, "tiny", "1").manifest == manifest
