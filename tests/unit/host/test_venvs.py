"""Shared environments: installed once for one set of wheels, never used half made, never kept when
nobody links to them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from airgap import fsio, limits
from airgap.engines import llama_cpp
from airgap.errors import HostError, IntegrityError
from airgap.events import Event, Line, Progress, Warn
from airgap.format.manifest import Manifest
from airgap.host import deployment, installed, preflight, remove, stage, venv, venvs
from airgap.host.paths import HostPaths
from tests.unit.host.parts import PROGRAM, UV, digest_of, make_manifest, wheel_bytes


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path / "host")


def put(paths: HostPaths, manifest: Manifest) -> tuple[deployment.Deployment, list[str]]:
    """Stage it; what was said of the environment."""
    events: list[Event] = []
    done = stage.stage(paths, manifest, digest_of(manifest), events.append, uv=UV)
    return done, [e.text for e in events if isinstance(e, Line) and e.label == "venv"]


def environments(paths: HostPaths) -> list[Path]:
    return sorted(paths.venvs.iterdir())


def test_two_versions_with_the_same_wheels_share_one(paths: HostPaths) -> None:
    first, said = put(paths, make_manifest(paths, "1"))
    assert "1 wheels in " in said[0]
    (shared,) = environments(paths)
    before = {p: os.lstat(p).st_ino for p in shared.rglob("*")}
    second, said = put(paths, make_manifest(paths, "2", models=("other.gguf",)))
    assert said == ["1 wheels are installed already, with another version"]
    assert {p: os.lstat(p).st_ino for p in shared.rglob("*")} == before
    assert first.paths.venv.resolve() == second.paths.venv.resolve() == shared / "venv"
    assert first.record.installer == second.record.installer


def test_how_far_it_is_is_told(paths: HostPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(venv, "_WATCH_SECONDS", 0.01)
    manifest = make_manifest(paths, "1")
    events: list[Event] = []
    stage.stage(paths, manifest, digest_of(manifest), events.append, uv=UV)
    told = [e for e in events if isinstance(e, Progress) and e.label == "venv"]
    assert {(e.total, e.unit) for e in told} == {(1, "wheels")}
    assert sorted(e.done for e in told) == [e.done for e in told] and told[-1].done == 1


def test_another_wheel_of_the_same_name_gets_another(paths: HostPaths) -> None:
    first, _ = put(paths, make_manifest(paths, "1"))
    other = wheel_bytes(program=PROGRAM + b"# changed\n")
    second, _ = put(paths, make_manifest(paths, "2", wheel=other))
    assert len(environments(paths)) == 2
    programs = [llama_cpp.find_program(d.paths.venv).read_bytes() for d in (first, second)]
    assert programs == [PROGRAM, PROGRAM + b"# changed\n"]


def test_what_was_changed_in_between_is_not_sealed_with_the_next_version(paths: HostPaths) -> None:
    first, _ = put(paths, make_manifest(paths, "1"))
    llama_cpp.find_program(first.paths.venv).write_bytes(PROGRAM + b"# another's\n")
    second, _ = put(paths, make_manifest(paths, "2", models=("other.gguf",)))
    assert second.record.environment == first.record.environment
    with pytest.raises(IntegrityError) as e:
        installed.verify_installed(paths)
    assert "tiny 1: " in (e.value.why or "") and "tiny 2: " in (e.value.why or "")


@pytest.mark.parametrize("uv", [UV, None])
def test_what_the_bundle_leaves_out_is_named_in_one_line(paths: HostPaths, uv: Path | None) -> None:
    wheel = wheel_bytes(requires=("absent-two>=1; python_version > '3'", "absent-one"))
    manifest = make_manifest(paths, wheel=wheel)
    events: list[Event] = []
    stage.stage(paths, manifest, digest_of(manifest), events.append, uv=uv)
    (said,) = [e.text for e in events if isinstance(e, Warn)]
    assert "absent-one (for tiny-engine), absent-two (for tiny-engine)" in said


@pytest.mark.parametrize("step", ["_make", "_install", "_check"])
def test_half_made_environment_is_made_again(paths: HostPaths, step: str) -> None:
    child = os.fork()
    if child == 0:
        real = getattr(venv, step)

        def dying(*args: object) -> None:
            real(*args)
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(venv, step, dying)
        try:
            put(paths, make_manifest(paths))
        finally:
            os._exit(3)
    _, how = os.waitpid(child, 0)
    assert os.WTERMSIG(how) == signal.SIGKILL
    (shared,) = environments(paths)
    stray = shared / "venv" / "stray"
    stray.write_text("of the killed run")
    done, said = put(paths, make_manifest(paths))
    assert "in " in said[0] and not stray.exists()
    assert llama_cpp.find_program(done.paths.venv).exists()


def test_environment_whose_python_is_gone_is_made_again(paths: HostPaths) -> None:
    put(paths, make_manifest(paths, "1"))
    python = environments(paths)[0] / "venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(paths.root / "no-python")
    _, said = put(paths, make_manifest(paths, "2"))
    assert said[0].startswith("1 wheels in ")
    assert python.exists()


def test_environment_whose_list_is_gone_gets_it_back_from_its_user(paths: HostPaths) -> None:
    """What runs from it is not taken away meanwhile."""
    first, _ = put(paths, make_manifest(paths, "1"))
    place = venvs.EnvironmentPaths(environments(paths)[0])
    before = {p: os.lstat(p).st_ino for p in place.venv.rglob("*")}
    place.sums.unlink()
    second, said = put(paths, make_manifest(paths, "2"))
    assert said == ["1 wheels are installed already, with another version"]
    assert {p: os.lstat(p).st_ino for p in place.venv.rglob("*")} == before
    assert place.sums.read_bytes() == first.paths.sums.read_bytes()
    assert second.paths.sums.read_bytes() == place.sums.read_bytes()


@pytest.mark.parametrize("damage", ["no record", "another list"])
def test_environment_in_use_that_cannot_be_judged_is_left_alone(
    paths: HostPaths, damage: str
) -> None:
    first, _ = put(paths, make_manifest(paths, "1"))
    place = venvs.EnvironmentPaths(environments(paths)[0])
    before = {p: os.lstat(p).st_ino for p in place.venv.rglob("*")}
    if damage == "no record":
        place.record.unlink()
    else:
        place.sums.unlink()
        fsio.write(first.paths.sums, b"of something else\n")
    with pytest.raises(HostError, match=r"host\.environment-in-use.*tiny 1"):
        put(paths, make_manifest(paths, "2"))
    assert {p: os.lstat(p).st_ino for p in place.venv.rglob("*")} == before
    remove.uninstall(paths, "tiny", "1")
    _, said = put(paths, make_manifest(paths, "2"))
    assert said[0].startswith("1 wheels in ")


def test_killed_remaking_of_an_environment_in_use_is_finished_by_the_same_command(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(paths, make_manifest(paths, "1"))
    python = environments(paths)[0] / "venv" / "bin" / "python"
    python.unlink()

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(venv, "_install", killed)
        with pytest.raises(KeyboardInterrupt):
            put(paths, make_manifest(paths, "2"))
    assert python.exists()
    _, said = put(paths, make_manifest(paths, "2"))
    assert said[0].startswith("1 wheels in ")
    assert not (environments(paths)[0] / "unfinished").exists()


def test_half_removed_environment_is_not_taken_for_complete(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(paths, make_manifest(paths, "1"))
    place = venvs.EnvironmentPaths(environments(paths)[0])
    key = venvs.Environment.from_bytes(place.record.read_bytes()).key

    def killed(_folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fsio, "remove_tree", killed)
    with pytest.raises(KeyboardInterrupt):
        venvs.remove(place)
    assert venvs.complete(place, key) is None


def test_a_version_whose_environment_was_lost_is_staged_again(paths: HostPaths) -> None:
    manifest = make_manifest(paths, "1")
    put(paths, manifest)
    fsio.remove_tree(environments(paths)[0])
    done, said = put(paths, manifest)
    assert said[0].startswith("1 wheels in ")
    assert llama_cpp.find_program(done.paths.venv).exists()


def test_record_of_another_key_is_not_believed(paths: HostPaths) -> None:
    put(paths, make_manifest(paths, "1"))
    place = venvs.EnvironmentPaths(environments(paths)[0])
    found = venvs.Environment.from_bytes(place.record.read_bytes())
    assert venvs.complete(place, found.key) == found
    assert venvs.complete(place, "0" * 64) is None
    fsio.write(place.record, b"{}\n")
    assert venvs.complete(place, found.key) is None


def test_root_may_be_moved_and_links_still_hold(paths: HostPaths, tmp_path: Path) -> None:
    put(paths, make_manifest(paths, "1"))
    os.rename(paths.root, tmp_path / "moved")
    moved = HostPaths(tmp_path / "moved")
    place = moved.deployment("tiny", "1")
    assert place.venv.resolve().is_relative_to(moved.venvs)
    assert venvs.unused(moved) == ()


def test_only_what_nobody_links_to_is_discarded(paths: HostPaths) -> None:
    put(paths, make_manifest(paths, "1"))
    other = wheel_bytes(program=PROGRAM + b"# changed\n")
    second, _ = put(paths, make_manifest(paths, "2", wheel=other))
    assert venvs.discard_unused(paths) == ()
    lonely = second.paths.venv.resolve().parent
    fsio.remove_tree(second.paths.folder)
    assert lonely.is_dir(), "removing a deployment followed its link"
    assert venvs.discard_unused(paths) == (lonely,)
    assert [p.name for p in environments(paths)] != [] and not lonely.exists()
    kept, _ = put(paths, make_manifest(paths, "1"))
    assert llama_cpp.find_program(kept.paths.venv).exists()


def test_gateways_environment_counts_as_used(paths: HostPaths) -> None:
    done, _ = put(paths, make_manifest(paths, "1"))
    gateway = done.paths.gateway
    gateway.folder.mkdir()
    assert gateway.venvs == done.paths.venvs == paths.venvs
    shared = venvs.EnvironmentPaths(paths.venvs / "abc")
    fsio.make_dirs(shared.venv)
    fsio.write(shared.sums, b"")
    assert venvs.unused(paths) == (shared.folder,)
    venvs.link(gateway, shared)
    assert venvs.unused(paths) == ()


def test_preflight_asks_no_space_for_an_environment_that_is_here(paths: HostPaths) -> None:
    new = make_manifest(paths, "2", models=("other.gguf",))
    before = preflight.needs(paths, new)
    put(paths, make_manifest(paths, "1"))
    after = preflight.needs(paths, new)
    packed = sum(f.size for f in new.wheels_to_serve().files)
    assert before.unpack_bytes - after.unpack_bytes == packed * limits.WHEEL_UNPACK_FACTOR


def test_uninstall_removes_the_environment_with_its_last_user(paths: HostPaths) -> None:
    put(paths, make_manifest(paths, "1"))
    put(paths, make_manifest(paths, "2", models=("other.gguf",)))
    remove.uninstall(paths, "tiny", "1")
    assert len(environments(paths)) == 1
    remove.uninstall(paths, "tiny", "2")
    assert environments(paths) == []
