"""A request whose target was measured: it always becomes a concrete one, or is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import IntegrityError, SourceError, UsageError
from airgap.format.facts import Clock, Cpu, Disk, Facts, Gpu, Nvidia, PythonFact
from bundler import request

GIB = 1024**3
HOST = Facts(
    system="debian 12",
    kernel="6.1.0",
    machine="x86_64",
    glibc="2.36",
    init="systemd",
    cgroups="v2",
    selinux="absent",
    apparmor=True,
    pythons=(PythonFact(version="3.11", venv=True), PythonFact(version="3.14", venv=True)),
    cpu=Cpu(model="AMD EPYC 9654", cores=64, features=("avx2",)),
    memory=512 * GIB,
    disks=(Disk(mount="/", type="xfs", size=1000 * GIB, free=500 * GIB, root=True),),
    nvidia=Nvidia(
        driver="580.65.06",
        cuda="13.0",
        gpus=(Gpu(model="NVIDIA H100", memory=80 * GIB, compute_capability="9.0"),),
    ),
    cdi=False,
    runtimes=(),
    libraries=("libnuma.so.1",),
    listening=(22,),
    clock=Clock(now=1_790_000_000, newest_known=1_780_000_000),
    default_route=False,
    resolver=False,
)


def write(folder: Path, target: str, facts: bytes | None) -> Path:
    if facts is not None:
        (folder / "host.json").write_bytes(facts)
    path = folder / "m.toml"
    path.write_text(
        f'name = "m"\nversion = "1"\n[target]\n{target}\n'
        '[[wheels]]\nrequirements = ["six==1.17.0"]\n'
    )
    return path


def target_of(folder: Path, target: str, host: Facts = HOST) -> tuple[str, str, str]:
    found = request.read(write(folder, target, host.to_bytes())).target
    return found.python, found.platform, found.accelerator


def test_a_measured_target_is_concrete(tmp_path: Path) -> None:
    expected = ("3.11", "x86_64-manylinux_2_36", "cuda-13")
    assert target_of(tmp_path, 'facts = "host.json"') == expected


def test_without_a_gpu_it_is_the_cpu_and_of_an_odd_glibc_the_nearest_older(tmp_path: Path) -> None:
    host = replace(HOST, nvidia=None, glibc="2.29", machine="aarch64")
    expected = ("3.11", "aarch64-manylinux_2_28", "cpu")
    assert target_of(tmp_path, 'facts = "host.json"', host) == expected


def test_what_is_written_beside_it_decides(tmp_path: Path) -> None:
    written = (
        'facts = "host.json"\npython = "3.14"\nplatform = "x86_64-manylinux_2_28"\n'
        'accelerator = "cpu"'
    )
    assert target_of(tmp_path, written) == ("3.14", "x86_64-manylinux_2_28", "cpu")


@pytest.mark.parametrize(
    ("written", "id", "why"),
    [
        ('python = "3.12"', "facts.python", "3.11, 3.14"),
        ('platform = "x86_64-manylinux_2_39"', "facts.platform", "glibc 2.36"),
        ('platform = "aarch64-manylinux_2_28"', "facts.platform", "x86_64"),
        ('accelerator = "cuda-14"', "facts.accelerator", "CUDA 13.0"),
    ],
)
def test_what_the_host_cannot_run_is_refused(
    tmp_path: Path, written: str, id: str, why: str
) -> None:
    with pytest.raises(UsageError) as e:
        target_of(tmp_path, f'facts = "host.json"\n{written}')
    assert (e.value.id, e.value.exit_code) == (id, 2)
    assert why in e.value.why


@pytest.mark.parametrize("glibc", [None, "2.12"])
def test_a_host_without_a_usable_c_library_is_refused(tmp_path: Path, glibc: str | None) -> None:
    with pytest.raises(UsageError, match=r"facts\.platform"):
        target_of(tmp_path, 'facts = "host.json"', replace(HOST, glibc=glibc))


def test_a_target_with_neither_facts_nor_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as e:
        request.read(write(tmp_path, 'python = "3.12"', None))
    assert e.value.id == "request.invalid" and "platform" in e.value.what + e.value.why


def test_facts_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as e:
        request.read(write(tmp_path, 'facts = "host.json"', None))
    assert (e.value.id, e.value.exit_code) == ("facts.missing", 6)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]\n",
        b"{" * 100_000,
        HOST.to_bytes().replace(b"debian 12", b"debian 12\\u001b[2J"),
        HOST.to_bytes().replace(b'"listening":[22]', b'"listening":[22],"hostname":"db"'),
        HOST.to_bytes().replace(b'"memory":549755813888', b'"memory":1e999'),
        HOST.to_bytes() + b" ",
        HOST.to_bytes()[:-10],
        b"x" * 300_000,
    ],
)
def test_hostile_facts_are_refused_on_the_connected_side(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(IntegrityError) as e:
        request.read(write(tmp_path, 'facts = "host.json"', data))
    assert e.value.exit_code == 3


def test_another_host_makes_the_lock_stale(tmp_path: Path) -> None:
    """The lock keeps the SHA-256 of the request with the target that was measured."""
    one = request.read(write(tmp_path, 'facts = "host.json"', HOST.to_bytes()))
    other = replace(HOST, glibc="2.39")
    two = request.read(write(tmp_path, 'facts = "host.json"', other.to_bytes()))
    assert one.to_bytes() != two.to_bytes()
