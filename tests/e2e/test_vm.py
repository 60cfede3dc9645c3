"""A virtual machine with a kernel of its own, cgroup v2 and no network device, from bare: the power
fails while it installs an engine's image and while it changes to the next version, then podman's
Quadlet exactly as rendered, a crash, a reboot by its own kernel; then an engine from wheels.

One machine, in this order; nothing but the kit and the bundles on a USB stick was ever put on it.
SEALIFT_TEST_LONG=1 or `make test-long` runs it: minutes with KVM, more than an hour without.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.caches import alone
from tests.e2e import vm, writelog
from tests.e2e.emulator import emulator
from tests.e2e.image_world import engine_image, relabelled
from tests.e2e.short_model import shorten
from tests.e2e.test_image_journey import NAME, REPOSITORY, bundle, request
from tests.e2e.test_image_systemd import PIDS, UNIT, quadlet_files
from tests.e2e.vm import MEDIA, VirtualMachine
from tests.e2e.world import Connected
from tests.unit.images.maker import push

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.environ.get("SEALIFT_TEST_LONG") != "1",
        reason="minutes; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
    ),
]
WHEELS = "smollm2"
PYTHON = "3.13"  # Debian 13's own
ROOT = "/var/lib/airgap"
PLACE = f"{ROOT}/deployments/{NAME}"
INSTALL = f"/opt/airgap/airgap --json install {MEDIA}/{NAME}-"
# When the power fails in an install, by what the disk holds then.
MOMENTS = {
    "files are taken in": f"ls {ROOT}/store/blobs/sha256 | grep -q .",
    "podman takes the image in": f"ls {ROOT}/containers/storage/overlay/*/diff | grep -q .",
    "the deployment is complete": f"test -e {PLACE}/1/deployment.json",
    "the engine's container runs": f"test -S {PLACE}/1/run/socket/engine.sock",
}
# And while the second version takes over from the first.
LATER = {
    "the next version is being staged": f"test -d {PLACE}/2",
    "both engines run": f"test -S {PLACE}/2/run/socket/engine.sock",
    "the link is switched": f'test "$(readlink {PLACE}/current)" = 2',
}

LAYERS = 2  # of 30: without KVM a token takes seconds else
LOSSES = 24
# Every blob under its name is whole, and nothing of what the host says of itself is amiss.
JUDGED = f"""set -e
cd {ROOT}
find store/blobs/sha256 -type f | while read -r f; do
  test "$(sha256sum < "$f" | cut -c1-64)" = "${{f##*/}}" || {{ echo "torn: $f" >&2; exit 1; }}
done
for words in audit "verify --installed" status; do /opt/airgap/airgap --json $words >&2; done
echo "$(find store/blobs/sha256 -type f | wc -l) blobs," \\
  "$(readlink deployments/{WHEELS}/current || echo none)"
"""


@pytest.fixture(scope="module")
def stick(
    connected: Connected,
    docker_registry: str,
    test_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The kit, an engine's image in two versions, and one of wheels; a model that says anything."""
    with alone(test_cache):
        model = shorten(connected.parts.gguf, test_cache / "short.gguf", LAYERS)
    changes = {"model": str(model), "expect": "."}
    made = engine_image(connected.parts.wheel, tmp_path_factory.mktemp("engine"), "1")
    relabelled(made, "1", "2")
    push(made, docker_registry, REPOSITORY)
    carried = [
        bundle(connected, v, ("build", request(connected, docker_registry, v, **changes)))
        for v in "12"
    ]
    carried.append(connected.bundle("1.5", out="wheels", python=PYTHON, **changes))
    path = tmp_path_factory.mktemp("stick") / "stick"
    vm.make_stick(path, connected.folder / "kit", *carried)
    return path


@pytest.fixture(scope="module")
def host(
    stick: Path, test_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VirtualMachine]:
    reason = vm.why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("machine")
    disk = folder / "disk"
    vm.make_disk(test_cache, disk)
    kernel = vm.kernel_of(test_cache)
    qemu = emulator(test_cache, kernel[0])
    if qemu.why_slow is not None:
        print(f"without KVM, so every instruction is translated: {qemu.why_slow}")
    made = VirtualMachine(qemu, kernel, disk, folder, stick)
    try:
        made.begin()
        made.plug()
        yield made
    finally:
        made.close()
        disk.unlink()


def answers(host: VirtualMachine, port: int) -> None:
    host.until(lambda: host.ask(port) != "", 600)


def cut_when(host: VirtualMachine, script: str, moment: str) -> None:
    """Begin the script; the power fails when `moment` has come, and comes back."""
    host.sh(
        f"{script} > /root/said 2>&1 & until {moment} || ! kill -0 $!; do sleep 0.1; done "
        f"2>/dev/null; {moment} || {{ cat /root/said >&2; exit 1; }}"
    )
    host.cut()
    host.begin()
    assert host.sh("systemctl show -p Result --value systemd-fsck-root").out == "success\n"
    host.plug()


def whole_or_nothing(host: VirtualMachine, port: int) -> str | None:
    """What holds after any loss of power. Returns the version that serves, if one does."""
    host.airgap("audit")
    host.airgap("verify", "--installed")
    serving = [v for v, said in host.status().items() if said.get("state") == "serving"]
    assert len(serving) <= 1
    if not serving:
        assert host.ask(port) == ""
        return None
    answers(host, port)
    return serving[0]


def test_bare_machine_trusts_the_officers(connected: Connected, host: VirtualMachine) -> None:
    assert host.sh("stat -fc %T /sys/fs/cgroup").out == "cgroup2fs\n"
    assert host.sh("ls /sys/class/net").out == "lo\n"
    host.install_kit(f"{MEDIA}/kit")
    sha256 = hashlib.sha256((connected.folder / "kit/root.json").read_bytes()).hexdigest()
    host.airgap("trust", "add", f"{MEDIA}/kit/root.json", "--sha256", sha256)
    said = host.airgap("preflight", f"{MEDIA}/{NAME}-1")
    assert "no default route" in said.err, said.err


@pytest.mark.parametrize("moment", MOMENTS)
def test_power_fails_during_an_install(
    connected: Connected, host: VirtualMachine, moment: str
) -> None:
    cut_when(host, f"{INSTALL}1", MOMENTS[moment])
    assert whole_or_nothing(host, connected.port) in (None, "1")


def test_same_command_again_completes_the_install(
    connected: Connected, host: VirtualMachine
) -> None:
    host.sh(f"{INSTALL}1")
    answers(host, connected.port)
    assert whole_or_nothing(host, connected.port) == "1"


@pytest.mark.parametrize("moment", LATER)
def test_power_fails_while_the_next_version_takes_over(
    connected: Connected, host: VirtualMachine, moment: str
) -> None:
    cut_when(host, f"{INSTALL}2", LATER[moment])
    answers(host, connected.port)
    assert whole_or_nothing(host, connected.port) in ("1", "2")


def test_same_command_again_completes_the_upgrade_and_there_is_a_way_back(
    connected: Connected, host: VirtualMachine
) -> None:
    host.sh(f"{INSTALL}2")
    assert whole_or_nothing(host, connected.port) == "2"
    host.airgap("rollback", NAME)
    assert whole_or_nothing(host, connected.port) == "1"


def container_process(host: VirtualMachine) -> str:
    (engine,) = host.sh(PIDS, expect=None).out.split()
    return engine


def shut_in(host: VirtualMachine) -> None:
    """What the kernel says of the engine's process, not what a command line asked for."""
    pid = container_process(host)
    status = host.sh(f"cat /proc/{pid}/status").out
    for wanted in (r"Uid:\s65533\s65533", r"Gid:\s65533\s65533", r"NoNewPrivs:\s1", r"Seccomp:\s2"):
        assert re.search(wanted, status), status
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert re.search(rf"Cap{kind}:\s0{{16}}", status), status
    mounts = host.sh(f"cat /proc/{pid}/mounts").out.splitlines()
    assert next(m for m in mounts if m.split()[1] == "/").split()[3].startswith("ro"), mounts
    model = next(m.split()[3] for m in mounts if m.split()[1].endswith("/model"))
    assert model.startswith("ro"), mounts
    network = host.sh(f"nsenter -t {pid} -n cat /proc/net/dev /proc/net/route").out
    assert re.findall(r"(?m)^\s*(\w+):", network) == ["lo"], network
    own = host.sh(f"readlink /proc/{pid}/ns/net /proc/1/ns/net").out.split()
    assert own[0] != own[1]
    assert host.sh(f"nsenter -t {pid} -n cat /proc/net/tcp | wc -l").out == "1\n", "it listens"
    confined = host.sh(f"cat /proc/{pid}/attr/current; cat /proc/{pid}/cgroup").out
    print(f"AppArmor and cgroup of the engine: {confined.split()}")


def test_quadlet_as_rendered_serves_shut_in_on_cgroup_v2(
    connected: Connected, host: VirtualMachine
) -> None:
    shown = host.sh(f"/opt/airgap/airgap service show {NAME} --quadlet").out
    host.airgap("stop", NAME)
    host.sh(f"systemctl disable sealift-{NAME}.service")
    for filename, text in quadlet_files(shown):
        quadlet = filename.endswith(".container")
        folder = "/etc/containers/systemd" if quadlet else "/etc/systemd/system"
        host.put(f"{folder}/{filename}", text)
    host.sh("systemctl daemon-reload")
    host.sh(f"systemctl start {UNIT}.service && systemctl enable --now {UNIT}-port.socket")
    answers(host, connected.port)
    shut_in(host)
    group = host.sh(f"systemctl show -p ControlGroup --value {UNIT}.service").out.strip()
    assert group in host.sh(f"cat /proc/{container_process(host)}/cgroup").out


def test_quadlet_engine_that_is_killed_comes_back(
    connected: Connected, host: VirtualMachine
) -> None:
    before = container_process(host)
    host.sh(f"kill -9 {before}")
    host.until(lambda: host.sh(PIDS, None).out.split() not in ([], [before]), 300)
    answers(host, connected.port)


def test_quadlet_serves_again_after_a_reboot_and_a_loss_of_power(
    connected: Connected, host: VirtualMachine
) -> None:
    host.reboot()
    answers(host, connected.port)
    shut_in(host)
    host.cut()
    host.begin()
    answers(host, connected.port)
    host.plug()


def test_no_loss_of_power_leaves_a_part_of_an_install(
    connected: Connected, host: VirtualMachine
) -> None:
    """By a disk that keeps what it answered a flush for and, of the rest, what it likes."""
    host.sh(f"systemctl stop {UNIT}.service {UNIT}-port.socket {UNIT}-port.service")
    host.sh(f"systemctl disable {UNIT}-port.socket && rm /etc/containers/systemd/{UNIT}.container")
    host.airgap("uninstall", NAME, "--stop", "--purge")
    host.power_off()
    before, copy = (host.folder / n for n in ("before", "copy"))
    writelog.copied(host.disk, before)
    host.log = host.folder / "log"
    host.begin()
    host.plug()
    host.airgap("install", f"{MEDIA}/{WHEELS}-1.5")
    host.cut()
    seen = []
    for _ in writelog.losses(host.log, before, copy, LOSSES):
        done = vm.look_inside(copy, JUDGED)
        assert done.code == 0, (seen, done)
        seen.append(done.out.splitlines()[-1])
    print(f"{len(seen)} losses of power, then there were: {seen}")
    assert seen[0].split()[-1] == "none" and seen[-1].split()[-1] == "1.5", seen
    for path in (host.log, before, copy):
        path.unlink()
    host.log = None


def test_engine_from_wheels_serves_and_comes_back_after_a_reboot(
    connected: Connected, host: VirtualMachine
) -> None:
    host.begin()
    answers(host, connected.port)
    units_are_right(host)
    host.reboot()
    answers(host, connected.port)
    assert host.serves("1.5")
    logged = host.sh(f"journalctl -b -u 'sealift-{WHEELS}-engine-1.5' --no-pager").out
    assert "llama" in logged or "model" in logged
    assert "2+2" not in host.sh("journalctl --no-pager").out


def units_are_right(host: VirtualMachine) -> None:
    host.sh("systemd-analyze verify --recursive-errors=yes --man=no /etc/systemd/system/sealift-*")
    shown = host.airgap("service", "show", WHEELS).out
    after = re.findall(r"# exposure: (.*?): ([\d.]+)", shown)
    print("systemd-analyze security:", after)
    assert sum(float(x) < 3 for _, x in after) >= 2, shown
    for kind in ("engine-1.5", "front"):
        unit = f"sealift-{WHEELS}-{kind}.service"
        pid = host.sh(f"systemctl show -p MainPID --value {unit}").out.strip()
        status = host.sh(f"cat /proc/{pid}/status").out
        assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"CapEff:\s0{16}", status)


def test_disk_is_sound_after_all_of_it(host: VirtualMachine) -> None:
    host.power_off()
    done = host.check_disk()
    assert done.code == 0, done.out + done.err
