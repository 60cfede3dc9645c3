"""Facts: what is measured, on this host and on hosts that are folders; what must never leave."""

from __future__ import annotations

import json
import os
import pwd
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from airgap.errors import FormatError, HostError
from airgap.format.facts import Facts
from airgap.host import facts, hardware, nvidia, probe, system
from airgap.host.paths import HostPaths

GIB = 1024**3
CPUINFO = """\
processor : 0
model name : Intel(R) Xeon(R) Platinum 8480+
flags : fpu avx avx2 avx512f avx512_bf16 amx_tile amx_bf16 hypervisor
serial : 4711
"""
MOUNTINFO = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 8:2 / /var/lib rw - xfs /dev/mapper/vault-of-alice rw
22 20 8:3 / /media/alice/SECRET\\040PLANS rw - ext4 /dev/sdb1 rw
23 20 0:5 / /proc rw - proc proc rw
"""
# What two machines really print: an H100 by the tool, a laptop whose GPU has no figures.
H100 = ["| NVIDIA-SMI 580.65.06   Driver Version: 580.65.06   CUDA Version: 13.0     |"] + [
    "580.65.06, 9.0, 81559, NVIDIA H100 80GB HBM3"
] * 2


def tree(top: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return top


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return facts.measure(HostPaths(tmp_path_factory.mktemp("host") / "root"))


def test_this_host_is_measured_and_survives_a_round(measured: Facts) -> None:
    assert Facts.from_bytes(measured.to_bytes()) == measured
    assert measured.machine == os.uname().machine
    assert f"3.{sys.version_info[1]}" in [p.version for p in measured.pythons]
    assert measured.memory > GIB and measured.cpu.cores == len(os.sched_getaffinity(0))
    root = measured.root_disk()
    assert root is not None and 0 < root.free <= root.size
    assert [d.root for d in measured.disks].count(True) == 1
    assert not measured.clock.behind
    assert measured.default_route == bool(probe.default_routes())


def test_no_name_address_or_serial_number_leaves(measured: Facts) -> None:
    text = measured.to_bytes().decode()
    secrets = {socket.gethostname(), socket.getfqdn(), os.uname().version}
    secrets |= {u.pw_name for u in pwd.getpwall() if u.pw_uid >= 1000 and u.pw_name != "nobody"}
    secrets |= {p.read_text().strip() for p in Path("/sys/class/net").glob("*/address")}
    for place in ("/etc/machine-id", "/proc/sys/kernel/random/boot_id"):
        if Path(place).exists():
            secrets.add(Path(place).read_text().strip())
    assert [s for s in secrets if len(s) > 3 and s in text] == []


def test_every_text_of_the_facts_is_of_a_narrow_pattern() -> None:
    from bundler.format_schemas import make_schema

    schema = json.dumps(make_schema("facts", Facts, lenient=False))
    tables = json.loads(schema)
    loose = []
    for name, table in {"Facts": tables, **tables["$defs"]}.items():
        for key, value in table["properties"].items():
            shape = value.get("items", value)
            if shape.get("type") == "string" and not {"enum", "pattern"} & set(shape):
                loose.append(f"{name}.{key}")
    assert loose == []


def test_listening_ports_are_found_and_nothing_is_connected_to(tmp_path: Path) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(1)
        assert s.getsockname()[1] in system.listening()
        s.setblocking(False)
        facts.measure(HostPaths(tmp_path))
        with pytest.raises(BlockingIOError):
            s.accept()


def test_cpu_disks_and_mounts_of_people_are_not_told(tmp_path: Path) -> None:
    top = tree(
        tmp_path,
        {
            "proc/cpuinfo": CPUINFO,
            "proc/meminfo": "MemTotal: 1048576 kB\n",
            "proc/self/mountinfo": MOUNTINFO,
        },
    )
    cpu = hardware.cpu(top)
    assert cpu.model == "Intel(R) Xeon(R) Platinum 8480+"
    assert cpu.features == ("avx", "avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
    assert hardware.memory(top) == GIB
    disks = hardware.disks(Path("/var/lib/airgap"), top)
    assert [(d.mount, d.type, d.root) for d in disks] == [
        ("/", "ext4", False),
        ("/var/lib", "xfs", True),
    ]


def test_the_name_of_a_mount_that_holds_the_root_is_not_told(tmp_path: Path) -> None:
    place = tmp_path / "vault of alice"
    place.mkdir()
    line = f"20 1 8:1 / {str(place).replace(' ', chr(92) + '040')} rw - ext4 /dev/sda1 rw\n"
    top = tree(tmp_path / "top", {"proc/self/mountinfo": line})
    (disk,) = hardware.disks(place / "airgap", top)
    assert (disk.mount, disk.root) == ("/other", True)


def test_gpus_are_read_from_what_the_tool_prints() -> None:
    found = nvidia.parse(H100)
    assert found is not None
    assert (found.driver, found.cuda, len(found.gpus)) == ("580.65.06", "13.0", 2)
    gpu = found.gpus[0]
    assert gpu.memory == 81559 * 1024 * 1024 and gpu.compute_capability == "9.0"
    assert nvidia.parse([]) is None
    assert nvidia.parse(["NVIDIA-SMI has failed, because it couldn't communicate, ok, no"]) is None
    assert nvidia.parse(["580.65.06, 12.1, [N/A], NVIDIA GB10"]) is None


def test_the_real_tool_is_asked_for_no_serial_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in in its place: there is no GPU here. It records how it was called."""
    tool = tmp_path / "nvidia-smi"
    log = tmp_path / "log"
    tool.write_text(
        f'#!/bin/sh\necho "$*" >> {log}\n'
        f'[ $# = 0 ] && echo "{H100[0]}" || printf "%s\\n" "{H100[1]}"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setattr("airgap.environment.SYSTEM_PATH", f"{tmp_path}:/usr/bin:/bin")
    found = nvidia.measure()
    assert found is not None and found.cuda == "13.0" and len(found.gpus) == 1
    assert not {"uuid", "serial", "pci"} & set(log.read_text().lower().replace(".", " ").split())


def test_a_library_without_a_driver_is_no_gpu() -> None:
    """The child that would load NVML dies, and only the child."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", nvidia._NVML], capture_output=True, check=False
    )
    if done.returncode == 0:
        pytest.skip("this machine has an NVIDIA driver; the test is about those without")
    assert nvidia.parse(done.stdout.decode().splitlines()) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/fs/selinux/enforce": "1"}, "enforcing"),
        ({"sys/fs/selinux/enforce": "0"}, "permissive"),
        ({"etc/selinux/config": "SELINUX=disabled\n"}, "disabled"),
        ({}, "absent"),
    ],
)
def test_selinux(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert system.selinux(tree(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("text", "upstream", "expected"),
    [
        ("", None, False),
        ("# nameserver 10.0.0.1\n", None, False),
        ("nameserver 10.0.0.1\n", None, True),
        ("nameserver 127.0.0.53\n", None, False),
        ("nameserver 127.0.0.53\n", "nameserver 10.0.0.1\n", True),
    ],
)
def test_resolver(tmp_path: Path, text: str, upstream: str | None, expected: bool) -> None:
    files = {"etc/resolv.conf": text}
    if upstream is not None:
        files["run/systemd/resolve/resolv.conf"] = upstream
    assert system.has_resolver(tree(tmp_path, files)) is expected


def test_systemd_cgroups_apparmor_and_cdi(tmp_path: Path) -> None:
    assert (system.init(tmp_path), system.cgroups(tmp_path)) == ("other", "none")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    tree(
        tmp_path,
        {
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/module/apparmor/parameters/enabled": "Y\n",
            "etc/cdi/nvidia.yaml": "kind: nvidia.com/gpu\n",
            "etc/os-release": 'ID=rhel\nVERSION_ID="9.6"\n',
        },
    )
    assert (system.init(tmp_path), system.cgroups(tmp_path)) == ("systemd", "v2")
    assert system.apparmor(tmp_path) and system.has_cdi(tmp_path)
    assert system.system(tmp_path) == "rhel 9.6"


def test_a_clock_before_the_newest_file_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "clock", lambda: 1_000_000_000)
    assert facts.measure(HostPaths(tmp_path)).clock.behind


def test_a_machine_that_no_bundle_is_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "machine", lambda: "s390x")
    with pytest.raises(HostError, match=r"facts\.machine"):
        facts.measure(HostPaths(tmp_path))


def test_the_command_writes_canonical_facts(tmp_path: Path) -> None:
    out = tmp_path / "host.json"
    argv = [
        sys.executable,
        "-m",
        "airgap",
        "--root",
        str(tmp_path / "none"),
        "facts",
        "-o",
        str(out),
    ]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert str(out) in done.stdout
    assert Facts.from_bytes(out.read_bytes()).machine == os.uname().machine
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"system": "debian 12\x1b[2J"},
        {"system": "x" * 100},
        {"kernel": "6.1.0-alice-laptop"},
        {"listening": [70000]},
        {"listening": list(range(1, 5000))},
        {"machine": "s390x"},
        {"glibc": "2.36; rm -rf /"},
        {"memory": -1},
        {"memory": 2**60},
        {"hostname": "db1"},
    ],
)
def test_hostile_facts_are_refused(measured: Facts, change: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        Facts.from_json({**measured.to_json(), **change})
