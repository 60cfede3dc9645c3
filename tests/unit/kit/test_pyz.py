"""airgap.pyz: the same bytes everywhere, only what is needed in it, running on a bare Python."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from airgap.errors import IntegrityError
from airgap.trust.decide import DAY
from bundler.pack import kit, pyz
from tests.lab import Lab
from tests.unit.kit.conftest import EMPTY, Program, pythons

_BUILD = """
import os, sys
from pathlib import Path
os.umask(0o077)
from bundler.pack import kit, pyz
scratch, cache, out = map(Path, sys.argv[1:])
out.write_bytes(pyz.build(kit.pinned_wheels(cache / "kit"), scratch))
"""


def test_another_umask_folder_time_zone_and_home_give_the_same_bytes(
    program: Program, cache: Path, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    env = {
        **os.environ,
        "TZ": "Asia/Kathmandu",
        "HOME": str(home),
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": str(Path(kit.__file__).parents[2]),
        "COLUMNS": "200",
        "LC_ALL": "C",
    }
    out = tmp_path / "second.pyz"
    argv = [sys.executable, "-c", _BUILD, str(tmp_path / "scratch"), str(cache), str(out)]
    subprocess.run(argv, env=env, cwd=home, check=True)
    assert out.read_bytes() == program.path.read_bytes()
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("python", pythons())
def test_the_help_inside_is_what_click_prints_on_every_python(
    program: Program, python: str
) -> None:
    """So the help does not depend on the Python that builds, and `--help` tells the truth."""
    kept = program.run("--help", python=python)
    # With an argument more, click itself answers.
    real = program.run("--quiet", "--help", python=python, env={**EMPTY, "COLUMNS": "80"})
    assert (kept.returncode, real.returncode) == (0, 0)
    assert kept.stdout == real.stdout
    assert "Commands:" in kept.stdout


def test_it_holds_only_sources_and_licences(program: Program) -> None:
    data = program.path.read_bytes()
    assert data.startswith(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        infos = archive.infolist()
    assert names == sorted(set(names))
    assert {i.date_time for i in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert {i.external_attr >> 16 for i in infos} == {0o100644, 0o040755}
    odd = [n for n in names if not n.endswith((".py", "/METADATA", "/")) and "LICENSE" not in n]
    assert odd == []
    assert [n for n in names if "test_" in n or "emscripten" in n] == []
    tops = {n.split("/")[0] for n in names}
    packages = {t for t in tops if not t.endswith(".dist-info")} - {"__main__.py"}
    assert packages == {"airgap", *pyz.LIBRARIES}
    licences = {n.split("-")[0] for n in names if ".dist-info/" in n and "LICENSE" in n}
    assert licences == set(pyz.LIBRARIES)


def test_it_holds_every_module_of_airgap(program: Program) -> None:
    with zipfile.ZipFile(program.path) as archive:
        inside = {n for n in archive.namelist() if n.startswith("airgap/") and n[-1] != "/"}
    assert inside == set(pyz.own_sources())


_IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import airgap
names = [m.name for m in pkgutil.walk_packages(airgap.__path__, "airgap.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
from tuf.ngclient import Updater
for name, module in sorted(sys.modules.items()):
    top = name.split(".")[0]
    # A package without __init__.py has a __path__ and no __file__.
    places = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", [])]
    if any(p.startswith(sys.argv[1]) for p in places):
        print("inside", top)
    elif top not in sys.stdlib_module_names and top != "__main__":
        print("outside", name)
print("modules", len(names))
"""


@pytest.mark.parametrize("python", pythons())
def test_every_module_imports_nothing_but_the_standard_library_and_its_own(
    program: Program, python: str
) -> None:
    argv = [python, "-I", "-S", "-c", _IMPORT_ALL, str(program.path)]
    done = subprocess.run(argv, env=EMPTY, capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("outside")] == []
    inside = {line.split()[1] for line in lines if line.startswith("inside")}
    assert inside == {"airgap", *pyz.LIBRARIES}
    assert int(lines[-1].split()[1]) > 40


def _bundle(folder: Path) -> tuple[Lab, Path]:
    now = int(time.time())
    lab = Lab(folder / "lab", now=now)
    lab.init()
    digest = lab.approve(created=now, not_after=now + 30 * DAY)
    return lab, lab.pack(digest)


def _trusting(program: Program, lab: Lab, root: Path) -> Sequence[str]:
    root_json = root.parent / "root.json"
    root_json.write_bytes(lab.repository.published().roots[1])
    sheet = kit.sums({"root.json": root_json.read_bytes()}).decode()
    words = ("trust", "add", str(root_json), "--sha256", sheet.split()[0])
    done = program.run("--root", str(root), *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of alice, bob, carol must approve" in done.stdout
    return "--root", str(root)


@pytest.mark.parametrize("python", pythons())
def test_bare_python_with_an_empty_environment_trusts_and_verifies(
    program: Program, python: str, tmp_path: Path
) -> None:
    lab, bundle = _bundle(tmp_path)
    at = _trusting(program, lab, tmp_path / "host")
    done = program.run(*at, "verify", str(bundle), python=python)
    assert done.returncode == 0, done.stderr
    assert "every byte is approved" in done.stdout
    said = json.loads(program.run(*at, "--json", "verify", str(bundle)).stdout)
    assert (said["verified"], said["approved-by"]) == (True, ["alice", "bob"])


def test_one_changed_byte_is_refused_by_the_pyz_and_nothing_is_remembered(
    program: Program, tmp_path: Path
) -> None:
    lab, bundle = _bundle(tmp_path)
    at = _trusting(program, lab, tmp_path / "host")
    before = sorted((p, p.read_bytes()) for p in (tmp_path / "host").rglob("*") if p.is_file())
    largest = max((bundle / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.chmod(0o644)
    largest.write_bytes(data)
    done = program.run(*at, "verify", str(bundle))
    assert done.returncode == 3
    assert re.search(r"error integrity\.digest: .*" + largest.name, done.stderr)
    after = sorted((p, p.read_bytes()) for p in (tmp_path / "host").rglob("*") if p.is_file())
    assert after == before


def test_an_old_python_gets_one_sentence(program: Program) -> None:
    with zipfile.ZipFile(program.path) as archive:
        source = archive.read("__main__.py").decode()
    code = f"import sys; sys.version_info = (3, 9, 1)\n{source}"
    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "airgap needs Python 3.10 or newer; this is 3.9\n"


def _wheel(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


@pytest.mark.parametrize(
    "member",
    ["click/_speed.cpython-311-x86_64-linux-gnu.so", "evil/__init__.py", "click/../airgap/cli.py"],
)
def test_a_wheel_with_native_code_or_a_foreign_module_is_refused(member: str) -> None:
    wheel = _wheel(**{"click/__init__.py": b"", member: b""})
    with pytest.raises(IntegrityError) as e:
        pyz.wheel_members(wheel)
    assert e.value.id == "kit.wheel"


def test_a_file_that_is_no_wheel_is_refused() -> None:
    with pytest.raises(IntegrityError) as e:
        pyz.wheel_members(b"PK is not enough")
    assert e.value.id == "kit.wheel"


def test_a_library_that_is_lacking_is_refused(wheels: Sequence[bytes], tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"kit\.wheel"):
        pyz.build(wheels[1:], tmp_path)
