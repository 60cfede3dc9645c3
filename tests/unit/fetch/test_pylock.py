"""PEP 751 both ways: locks that others resolved, and ours that others install from; with the real
uv on both sides."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib

from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.events import silent
from airgap.format.artifacts import LockedWheels
from airgap.format.lock import Lock
from airgap.format.request import PinnedIndex, WheelsRequest
from airgap.format.types import Target
from bundler.fetch import download, resolver, wheel_export
from bundler.fetch.wheels import lock_wheels
from bundler.workspace import Workspace
from tests.unit.fetch.server import Server, serving
from tests.unit.fetch.wheel_maker import make_wheel

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
TARGET = Target(python=PYTHON, platform="x86_64-manylinux_2_36", accelerator="cpu")
# What DESIGN names: vLLM for CUDA 13. PyPI's vllm and torch wheels are those of CUDA 13.
CUDA = Target(python="3.12", platform="x86_64-manylinux_2_34", accelerator="cuda-13")


def lock(workspace: Workspace, *requirements: str, **more: Any) -> LockedWheels:
    target = more.pop("target", TARGET)
    request = WheelsRequest(requirements=requirements, **more)
    return lock_wheels(request, target, workspace.home.parent, workspace, silent)


def as_lock(wheels: LockedWheels) -> Lock:
    return Lock(
        request="0" * 64,
        name="t",
        version="1",
        summary="",
        release=1,
        created=1,
        not_after=2,
        audience=(),
        handling="",
        target=TARGET,
        artifacts=(wheels,),
    )


def fetch(wheels: LockedWheels, workspace: Workspace) -> None:
    items = [download.Item(f.url, f.sha256, f.size, str(f.path)) for f in wheels.files if f.url]
    download.fetch(items, workspace.store, silent)


# --- the real thing: 198 wheels of vLLM


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> tuple[LockedWheels, Workspace]:
    """Locked with pip's and uv's configuration of this machine, as a builder would."""
    workspace = Workspace(tmp_path_factory.mktemp("vllm") / "home")
    found = lock(workspace, "vllm==0.32.0", newest="2026-11-24", target=CUDA)
    return found, workspace


def test_vllm_for_cuda_locks_as_wheels_for_its_target(
    vllm: tuple[LockedWheels, Workspace],
) -> None:
    files = vllm[0].files
    names = {f.path.name.split("-")[0]: f for f in files}
    assert 150 < len(files) < 260
    assert {"vllm", "torch", "transformers", "flashinfer_python"} <= set(names)
    assert 3.0e9 < sum(f.size for f in files) < 5.5e9
    assert all(f.path.suffix == ".whl" and f.url for f in files)
    assert any(n.startswith("nvidia_cu") for n in names)
    assert names["torch"].size > 300e6 and "cp312" in names["torch"].path.name
    assert not [f.path for f in files if "aarch64" in f.path.name or "-cp311-cp311-" in f.path.name]
    assert all(f.uploaded is not None and f.uploaded < 1_795_564_800 for f in files)


def test_a_sample_of_vllms_wheels_is_fetched_by_hash(
    vllm: tuple[LockedWheels, Workspace],
) -> None:
    found, workspace = vllm
    sample = sorted((f for f in found.files if f.size < 60_000), key=lambda f: f.size)[-4:]
    items = [download.Item(str(f.url), f.sha256, f.size, str(f.path)) for f in sample]
    download.fetch(items, workspace.store, silent)
    for f in sample:
        blob = workspace.store.blob_path(f.sha256).read_bytes()
        assert hashlib.sha256(blob).hexdigest() == f.sha256 and len(blob) == f.size


# --- culprits


def test_every_package_that_is_only_source_is_named_at_once(workspace: Workspace) -> None:
    with pytest.raises(SourceError) as e:
        lock(workspace, "docopt==0.6.2", "six==1.17.0", "antlr4-python3-runtime==4.9.3")
    assert (e.value.id, e.value.exit_code) == ("source.no-wheel", 6)
    assert "2 packages" in e.value.what
    assert "docopt==0.6.2" in e.value.why and "antlr4-python3-runtime==4.9.3" in e.value.why
    assert "six" not in e.value.why
    assert "pip wheel" in e.value.do and "find-links" in e.value.do
    assert not any(workspace.cache.glob("resolve-*"))


def test_a_wheel_of_ones_own_takes_the_place_of_a_source(workspace: Workspace) -> None:
    make_wheel(workspace.home.parent / "mine", "docopt", "0.6.2")
    (file,) = lock(workspace, "docopt==0.6.2", find_links=("mine",)).files
    assert file.path.name == "docopt-0.6.2-py3-none-any.whl" and file.url is None


# --- an index for named packages only


def test_pinned_packages_come_from_their_index_and_nothing_else_does(
    workspace: Workspace, index: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch's CPU index beside PyPI: torch is on both, and both are asked for their own."""
    with serving() as pytorch:
        index.add_wheel(make_wheel(tmp_path / "m", "vllm", "1.0", needs=("torch==2.0", "six")))
        index.add_wheel(make_wheel(tmp_path / "m", "torch", "2.0"))
        index.add_wheel(make_wheel(tmp_path / "m", "six", "1.0"))
        pytorch.add_wheel(make_wheel(tmp_path / "p", "torch", "2.0+cpu"))
        pytorch.add_wheel(make_wheel(tmp_path / "p", "six", "99.0"))
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url("/simple"))
        pin = PinnedIndex(index=pytorch.url("/simple"), packages=("torch",))
        found = lock(workspace, "vllm==1.0", "torch==2.0+cpu", pinned=(pin,))
        names = [f.path.name for f in found.files]
        assert names == [
            "six-1.0-py3-none-any.whl",
            "torch-2.0+cpu-py3-none-any.whl",
            "vllm-1.0-py3-none-any.whl",
        ]
        assert {p for p in pytorch.asked if p.startswith("/simple")} == {"/simple/torch/"}
        assert "/simple/torch/" not in index.asked


def test_a_pinned_package_that_nobody_asks_for_is_refused(workspace: Workspace) -> None:
    pin = PinnedIndex(index="https://example.invalid/simple", packages=("torch",))
    with pytest.raises(UsageError, match=r"request\.requirement"):
        lock(workspace, "six", pinned=(pin,))
    assert not workspace.cache.exists()


# --- a lock that somebody else resolved


@pytest.fixture
def given(workspace: Workspace) -> Path:
    """A universal lock, as `uv` and `pip lock` write it: markers, several platforms."""
    folder = workspace.home.parent
    (folder / "in").write_text("markupsafe==3.0.2\ncolorama==0.4.6; sys_platform == 'win32'\nsix\n")
    argv = [resolver.find_uv(), "pip", "compile", "in", "--quiet", "--universal"]
    argv += ["--exclude-newer", "2026-11-20T00:00:00Z", "--python-version", PYTHON]
    argv += ["--format", "pylock.toml", "-o", "pylock.toml", "--default-index"]
    subprocess.run([*argv, "https://pypi.org/simple"], cwd=folder, check=True)
    return folder / "pylock.toml"


def test_a_lock_of_others_is_taken_as_it_is(workspace: Workspace, given: Path) -> None:
    assert "colorama" in given.read_text()
    found = lock(workspace, pylock="pylock.toml", newest="2026-11-20")
    names = [f.path.name for f in found.files]
    assert [n.split("-")[0] for n in names] == ["MarkupSafe", "six"]
    assert "manylinux" in names[0] and "x86_64" in names[0]
    sha256 = hashlib.sha256(given.read_bytes()).hexdigest()
    assert found.requirements == (f"pylock.toml sha256-{sha256}",)
    assert all(f.uploaded for f in found.files)


def test_a_lock_of_others_is_held_to_the_age(workspace: Workspace, given: Path) -> None:
    with pytest.raises(SourceError) as e:
        lock(workspace, pylock="pylock.toml", newest="2022-01-01")
    assert e.value.id == "source.too-new" and "MarkupSafe" in e.value.why
    given.write_text("\n".join(_without_times(line) for line in given.read_text().splitlines()))
    with pytest.raises(SourceError, match=r"source\.too-new"):
        lock(workspace, pylock="pylock.toml", newest="2026-11-20")


def _without_times(line: str) -> str:
    head, sign, rest = line.partition("upload-time = ")
    return head + rest.partition(", ")[2] if sign else line


def test_a_lock_that_says_another_digest_is_refused(workspace: Workspace) -> None:
    folder = workspace.home.parent
    wheel = make_wheel(folder / "w", "tiny", "1.0")
    (folder / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "tiny"\nversion = "1.0"\n'
        f'wheels = [{{ path = "w/{wheel.name}", hashes = {{ sha256 = "{"0" * 64}" }} }}]\n'
    )
    with pytest.raises(IntegrityError) as e:
        lock(workspace, pylock="pylock.toml")
    assert (e.value.id, e.value.exit_code) == ("source.digest", 3)
    assert not any(workspace.store.blobs.glob("*"))


@pytest.mark.parametrize(
    ("package", "id"),
    [
        ('sdist = { url = "https://x.invalid/a-1.tar.gz", hashes = { sha256 = "0" } }', "no-wheel"),
        ('vcs = { type = "git", url = "https://x.invalid/a", commit-id = "0" }', "no-wheel"),
        ('directory = { path = "a" }', "no-wheel"),
        ('wheels = [{ url = "https://x.invalid/a-1-py3-none-any.whl", hashes = {} }]', "pylock"),
        (
            'wheels = [{ url = "https://x.invalid/a-1-py3-none-any.whl", hashes = {md5 = "0"} }]',
            "no-hash",
        ),
    ],
)
def test_what_is_no_pinned_wheel_in_a_lock_of_others_is_refused(
    workspace: Workspace, package: str, id: str
) -> None:
    (workspace.home.parent / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "x"\n[[packages]]\nname = "a"\nversion = "1"\n'
        f"{package}\n"
    )
    with pytest.raises(SourceError) as e:
        lock(workspace, pylock="pylock.toml")
    assert e.value.id == f"source.{id}"


def test_a_lock_for_another_python_is_refused(workspace: Workspace) -> None:
    (workspace.home.parent / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "x"\nrequires-python = ">=3.15"\npackages = []\n'
    )
    with pytest.raises(SourceError, match=r"source\.pylock"):
        lock(workspace, pylock="pylock.toml")


# --- ours, installed by others


def test_an_export_installs_with_uv_without_an_index(workspace: Workspace, tmp_path: Path) -> None:
    wheels = lock(workspace, "markupsafe==3.0.2", "six==1.17.0")
    with pytest.raises(SourceError, match=r"source\.gone"):
        wheel_export.export(as_lock(wheels), None, workspace.store, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    fetch(wheels, workspace)
    path = wheel_export.export(as_lock(wheels), None, workspace.store, tmp_path / "out")
    data = tomllib.loads(path.read_text())
    assert [w["path"] for p in data["packages"] for w in p["wheels"]] == [
        f"wheels/{f.path.name}" for f in wheels.files
    ]
    first = path.read_bytes()
    wheel_export.export(as_lock(wheels), None, workspace.store, tmp_path / "out")
    assert path.read_bytes() == first
    assert {p.name for p in path.parent.iterdir()} == {"pylock.toml", "wheels"}
    moved = shutil.move(path.parent, tmp_path / "elsewhere")
    uv, place = resolver.find_uv(), tmp_path / "site"
    argv = [uv, "pip", "install", "--offline", "--no-config", "--no-index", "--python"]
    argv += [sys.executable, "--target", str(place), "-r", f"{moved}/pylock.toml"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (place / "markupsafe").is_dir() and (place / "six.py").is_file()


def test_a_lock_of_ours_is_a_lock_of_others(workspace: Workspace, tmp_path: Path) -> None:
    """Out and in again gives the same wheels."""
    wheels = lock(workspace, "six==1.17.0")
    fetch(wheels, workspace)
    wheel_export.export(as_lock(wheels), None, workspace.store, tmp_path / "out")
    again = lock(workspace, pylock=str(tmp_path / "out" / "pylock.toml"), newest="2026-11-20")
    assert [(f.path, f.sha256, f.size, f.uploaded) for f in again.files] == [
        (f.path, f.sha256, f.size, f.uploaded) for f in wheels.files
    ]


def test_a_folder_with_another_wheel_is_refused_and_untouched(
    workspace: Workspace, tmp_path: Path
) -> None:
    wheels = lock(workspace, "six==1.17.0")
    fetch(wheels, workspace)
    evil = make_wheel(tmp_path / "out" / "wheels", "six", "99.0")
    with pytest.raises(UsageError, match=r"wheels\.not-empty"):
        wheel_export.export(as_lock(wheels), None, workspace.store, tmp_path / "out")
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == [evil]
