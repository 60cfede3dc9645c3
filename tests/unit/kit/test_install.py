"""install.sh with a kit that has libraries: what it does, and every way in which it refuses."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import UsageError
from airgap.format.types import Target
from bundler.pack import kit, libraries
from bundler.pack.kit import Kit, build_kit
from tests.unit.request.test_facts import HOST

SCRIPT = Path(kit.__file__).with_name(kit.INSTALL)


def host_python() -> str:
    """The Python that install.sh finds, as `3.11`."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    argv = ["sh", "-c", f'python3 -c "{code}"']
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def made(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """For this host's own Python, with libraries and the real uv of its wheel."""
    target = Target(python=host_python(), platform="x86_64-manylinux_2_34", accelerator="cpu")
    return build_kit(
        tmp_path_factory.mktemp("k") / "kit", b"root\n", cache=cache, targets=(target,)
    )


@pytest.fixture
def copy(made: Kit, tmp_path: Path) -> Iterator[Kit]:
    """One to be spoilt, with its sheet on another way."""
    shutil.copytree(made.folder, tmp_path / "kit", copy_function=os.link)
    sheet = tmp_path / "sheet.txt"
    shutil.copy(made.sheet, sheet)
    yield Kit(tmp_path / "kit", sheet)


def install(made: Kit, folder: Path, *, env: dict[str, str] | None = None) -> tuple[int, str]:
    argv = ["sh", str(made.folder / kit.INSTALL), str(made.sheet), str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/", env=env)
    return done.returncode, done.stdout + done.stderr


def spoil(path: Path, data: bytes) -> None:
    """Another file in its place; the original is linked elsewhere."""
    path.unlink()
    path.write_bytes(data)


def test_the_script_is_clean_short_and_posix() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (make test installs it on Debian as root)")
    done = subprocess.run(["shellcheck", "-s", "sh", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert len(SCRIPT.read_text().splitlines()) < 90


def test_the_sheet_names_every_wheel_and_listing(made: Kit) -> None:
    names = {line.split("  ")[1] for line in made.sheet.read_text().splitlines()}
    files = {str(p.relative_to(made.folder)) for p in made.folder.rglob("*") if p.is_file()}
    assert names == files - {kit.SHEET, kit.README}
    wheels = [n for n in names if n.startswith("wheels/")]
    assert {n.split("/")[1].split("-")[0] for n in wheels} >= {"cryptography", "blake3", "cffi"}
    listing = (made.folder / libraries.listing_name(host_python())).read_text()
    for name in wheels:
        digest = hashlib.sha256((made.folder / name).read_bytes()).hexdigest()
        assert f"--hash=sha256:{digest}" in listing


def test_it_installs_into_one_folder_and_airgap_uses_the_libraries(
    copy: Kit, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    folder = tmp_path / "opt" / "airgap"
    folder.parent.mkdir()
    env = {"PATH": os.defpath, "HOME": str(tmp_path / "home")}
    code, said = install(copy, folder, env=env)
    assert code == 0, said
    assert f"{folder}/airgap trust add {folder}/root.json" in said
    assert set(tmp_path.iterdir()) - before == {tmp_path / "opt"}
    assert [p.name for p in folder.parent.iterdir()] == ["airgap"]
    assert {p.name for p in folder.iterdir()} == {
        *("airgap", "airgap.pyz", "compiled.pyz", "install.sh", "lib", "root.json", "uv"),
        libraries.listing_name(host_python()),
    }
    done = subprocess.run([folder / "airgap", "--version"], capture_output=True, text=True, env={})
    assert done.returncode == 0 and "airgap, version" in done.stdout, done.stderr
    # The same way in, with a question in the place of the program.
    asked = tmp_path / "ask"
    text = (
        (folder / "airgap")
        .read_text()
        .replace("os.path.dirname(os.path.realpath(__file__))", f'"{folder}"')
    )
    head = text.partition("sys.argv[0]")[0]
    asked.write_text(
        f"{head}import blake3, cryptography.hazmat.primitives.asymmetric.ec as e; "
        "print(blake3.__file__, e.__file__)\n"
    )
    asked.chmod(0o755)
    done = subprocess.run([asked], capture_output=True, text=True, check=True, env={})
    assert done.stdout.count(f"{folder}/lib/") == 2


def test_a_second_run_replaces_it_and_a_killed_one_is_finished(copy: Kit, tmp_path: Path) -> None:
    folder = tmp_path / "airgap"
    (tmp_path / "airgap.new" / "left").mkdir(parents=True)
    assert install(copy, folder)[0] == 0
    (folder / "old-file").touch()
    folder.rename(tmp_path / "airgap.old")  # killed between the two renames
    assert install(copy, folder)[0] == 0
    assert install(copy, folder)[0] == 0
    assert not (folder / "old-file").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"airgap", "kit", "sheet.txt"}


@pytest.mark.parametrize(
    "name", ["airgap.pyz", "uv", "root.json", "install.sh", "wheel", "listing"]
)
def test_one_changed_file_installs_nothing(copy: Kit, tmp_path: Path, name: str) -> None:
    path = {
        "wheel": next((copy.folder / "wheels").glob("cryptography-*")),
        "listing": copy.folder / libraries.listing_name(host_python()),
    }.get(name, copy.folder / name)
    data = path.read_bytes()
    spoil(path, data + b"\n")
    code, said = install(copy, tmp_path / "airgap")
    assert code == 3 and "not the one on the sheet" in said
    assert not (tmp_path / "airgap").exists()


def test_a_file_that_is_missing_installs_nothing(copy: Kit, tmp_path: Path) -> None:
    (copy.folder / "uv").unlink()
    code, said = install(copy, tmp_path / "airgap")
    assert code == 3 and "the kit has no uv" in said
    assert not (tmp_path / "airgap").exists()


def test_what_the_sheet_does_not_name_is_not_installed(copy: Kit, tmp_path: Path) -> None:
    """A library planted beside airgap.pyz on the medium, and one among the wheels."""
    (copy.folder / "lib" / "cryptography").mkdir(parents=True)
    (copy.folder / "lib" / "cryptography" / "__init__.py").write_text("raise SystemExit(66)")
    (copy.folder / "wheels" / "cryptography-99.0-py3-none-any.whl").write_bytes(b"evil")
    assert install(copy, tmp_path / "airgap")[0] == 0
    found = {p.name for p in (tmp_path / "airgap" / "lib").glob("cryptography-*")}
    assert len(found) == 1 and "99.0" not in str(found)
    done = subprocess.run(
        ["python3", "-I", "-S", str(copy.folder / "airgap.pyz"), "--version"], check=False
    )
    assert done.returncode == 0  # started from the medium, it does not see them either


@pytest.mark.parametrize(
    "line",
    [
        f"{'0' * 64}  ../../etc/passwd",
        f"{'0' * 64}  /etc/passwd",
        "not a sheet",
        f"{'0' * 64}  nothing-here",
    ],
)
def test_a_sheet_that_is_none_installs_nothing(copy: Kit, tmp_path: Path, line: str) -> None:
    copy.sheet.write_text(line + "\n" + copy.sheet.read_text())
    assert install(copy, tmp_path / "airgap")[0] == 3
    assert not (tmp_path / "airgap").exists()


def test_an_empty_sheet_installs_nothing(copy: Kit, tmp_path: Path) -> None:
    copy.sheet.write_text("")
    assert install(copy, tmp_path / "airgap")[0] == 3
    assert not (tmp_path / "airgap").exists()


def test_a_folder_of_somebody_else_is_left_alone(copy: Kit, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").touch()
    code, said = install(copy, tmp_path / "data")
    assert code == 2 and "holds no airgap" in said
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["mine"]


def test_a_target_is_written_or_measured(tmp_path: Path) -> None:
    found = libraries.parse_target("python=3.12,platform=x86_64-manylinux_2_34")
    assert (found.python, found.platform) == ("3.12", "x86_64-manylinux_2_34")
    (tmp_path / "host.json").write_bytes(HOST.to_bytes())
    assert libraries.measured_target(tmp_path / "host.json").python == "3.11"
    for text in ("3.12", "python=2.7,platform=x86_64-manylinux_2_34", "python=3.12,platform=win32"):
        with pytest.raises(UsageError, match=r"kit\.target"):
            libraries.parse_target(text)


def test_two_machines_need_two_kits(cache: Path, tmp_path: Path) -> None:
    one = libraries.parse_target("python=3.12,platform=x86_64-manylinux_2_34")
    two = replace(one, platform="aarch64-manylinux_2_34")
    with pytest.raises(UsageError, match=r"kit\.machines"):
        build_kit(tmp_path / "kit", None, cache=cache, targets=(one, two))
    assert not (tmp_path / "kit").exists()


def test_an_older_kit_with_libraries_is_replaced(copy: Kit, cache: Path) -> None:
    build_kit(copy.folder, None, cache=cache)
    assert not (copy.folder / "wheels").exists()
    assert not list(copy.folder.glob("libraries-*"))
    assert (copy.folder / kit.README).read_text().count("brings no libraries") == 1
