"""A bare Debian with systemd and no network: kit, trust, install, crash, reboot, revocation.

One host, in this order; nothing but the kit and the bundles was ever put on it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.container import Container
from tests.e2e.world import Connected

pytestmark = pytest.mark.e2e
NAME = "smollm2"


@pytest.fixture(scope="module")
def bundles(connected: Connected) -> dict[str, Path]:
    """1.0 and 2.0 for the container's own Python."""
    return {v: connected.bundle(v, out="debian", python="3.11") for v in ("1.5", "2.5")}


@pytest.fixture(scope="module")
def host(
    connected: Connected,
    bundles: dict[str, Path],
    rootfs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Container]:
    media = next(iter(bundles.values())).parent
    made = Container(
        rootfs,
        tmp_path_factory.mktemp("container"),
        {connected.folder / "kit": "/kit", media: "/media"},
    )
    try:
        made.begin()
        yield made
    finally:
        made.close()


def unit_of(host: Container, kind: str, version: str = "") -> str:
    tail = f"-{version}" if version else ""
    return f"sealift-{NAME}-{kind}{tail}.service"


def test_bare_host_serves_after_three_commands(
    connected: Connected, host: Container, bundles: dict[str, Path]
) -> None:
    sheet = host.sh("cd /kit && sha256sum -c airgap-fingerprints.txt")
    assert "airgap.pyz: OK" in sheet.out
    host.install_kit()
    sha256 = hashlib.sha256((connected.folder / "kit/root.json").read_bytes()).hexdigest()
    host.airgap("trust", "add", "/kit/root.json", "--sha256", sha256)
    host.airgap("install", f"/media/{NAME}-1.5")
    assert "4" in host.ask(connected.port)
    assert host.serves("1.5")
    assert len(host.sh("cat /proc/net/route").out.splitlines()) == 1, "it has a route"


def test_units_run_as_their_own_user_and_log_to_the_journal(host: Container) -> None:
    for kind, version in (("engine", "1.5"), ("front", "")):
        unit = unit_of(host, kind, version)
        shown = host.sh(f"systemctl show -p User,ActiveState,MainPID {unit}").out
        assert "User=sealift" in shown and "ActiveState=active" in shown
        pid = re.search(r"MainPID=(\d+)", shown)
        assert pid is not None
        status = host.sh(f"cat /proc/{pid[1]}/status").out
        assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"CapEff:\s0{16}", status)
    logged = host.sh(f"journalctl -u {unit_of(host, 'engine', '1.5')} --no-pager").out
    assert "llama" in logged or "model" in logged
    assert "2+2" not in host.journal()


def test_systemd_finds_no_error_in_the_units_and_less_exposure(host: Container) -> None:
    shown = host.airgap("service", "show", NAME).out
    before = [float(x) for x in re.findall(r"without hardening: .*?: ([\d.]+)", shown)]
    after = [float(x) for x in re.findall(r"# exposure: .*?: ([\d.]+)", shown)]
    print("systemd-analyze security, before and after:", list(zip(before, after, strict=True)))
    assert len(after) >= 4
    daemons = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert len(daemons) >= 2 and all(b > 9 and a < 3 for b, a in daemons), shown


def test_second_run_of_everything_changes_nothing(host: Container) -> None:
    listing = (
        "cd /var/lib/airgap && find . /etc/systemd/system /etc/sysusers.d -type f "
        "! -path '*/run/*' ! -path '*/logs/*' ! -path '*/tmp/*' -exec sha256sum {} + "
        "| sort -k 2; systemctl show -p MainPID 'sealift-*'"
    )
    before = host.sh(listing).out.splitlines()
    host.airgap("install", f"/media/{NAME}-1.5")
    host.airgap("start", NAME)
    assert set(host.sh(listing).out.splitlines()) ^ set(before) == set()
    host.airgap("verify", "--installed")


def test_engines_and_other_accounts_read_no_key_and_stand_in_no_way(host: Container) -> None:
    """The door's things are the door's user's; a lock is open to who has to see it."""
    host.sh("/opt/airgap/airgap keys add tests")
    assert host.sh("stat -c %U:%a /var/lib/airgap/keys.json").out == "sealift-door:600\n"
    for user, path, may in (
        ("sealift", "keys.json", False),
        ("sealift", f"deployments/{NAME}/1.5/run/supervisor.lock", True),
        ("nobody", f"deployments/{NAME}/1.5/run/supervisor.lock", False),
        ("nobody", f"deployments/{NAME}/1.5/run/endpoint.json", False),
    ):
        done = host.sh(f"runuser -u {user} -- cat /var/lib/airgap/{path}", expect=None)
        assert (done.code == 0) is may, (user, path, done.err)
    host.sh("/opt/airgap/airgap keys revoke tests")


COMPUTES = """
import json, os, socket, sys
try:
    open("/var/lib/airgap/deployments/x", "w")
except OSError as e:
    refused = e.errno
status = open("/proc/self/status").read()
print(json.dumps({
    "told": sys.stdin.read(), "root": os.getuid() == 0, "refused": refused,
    "networks": [name for _, name in socket.if_nameindex()], "locked": "NoNewPrivs:\\t1" in status,
}))
"""
SHUT_IN = """
import sys
sys.path.insert(0, "/opt/airgap/airgap.pyz")
from pathlib import Path
from airgap.host import asked, launch
from airgap.host.paths import HostPaths
words = launch.shut_in(HostPaths(Path("/var/lib/airgap")), 60)
said = asked.ask((*words, "/usr/bin/python3", "-I", "-c", {code!r}), {{}}, "word", 60)
print(said.out, said.err, said.code)
"""


def test_program_of_a_bundle_that_root_asks_can_only_compute(host: Container) -> None:
    host.put("/root/shut_in.py", SHUT_IN.format(code=COMPUTES))
    said, _, rest = host.sh("python3 -I -S /root/shut_in.py").out.partition("\n")
    found = {"told": "word", "root": False, "refused": 30, "networks": ["lo"], "locked": True}
    assert json.loads(said) == found and rest.split() == ["0"], rest


def test_killed_engine_supervisor_and_front_come_back(
    connected: Connected, host: Container
) -> None:
    for kind, version in (("engine", "1.5"), ("front", "")):
        unit = unit_of(host, kind, version)
        pid = host.sh(f"systemctl show -p MainPID --value {unit}").out.strip()
        host.sh(f"kill -9 {pid}")
        host.until(lambda: "4" in host.ask(connected.port))
        assert host.sh(f"systemctl show -p MainPID --value {unit}").out.strip() != pid
    assert kill_engine(host, "1.5") == 1
    host.until(lambda: "4" in host.ask(connected.port))
    assert host.serves("1.5")


def kill_engine(host: Container, version: str) -> int:
    """The engine's own process, behind its supervisor's back; the other versions' are spared.

    Versions share an environment, so the program is the same: the model's path tells them apart.
    Returns how many were killed.
    """
    done = host.sh(
        "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' < $p/cmdline 2>/dev/null) in "
        f"/var/*llama-server*/{version}/model/*) kill -9 ${{p#/proc/}} && echo 1;; esac; done",
        expect=None,
    )
    return len(done.out.split())


def test_it_comes_back_after_a_reboot(connected: Connected, host: Container) -> None:
    host.reboot()
    host.until(lambda: "4" in host.ask(connected.port), 120)
    assert host.serves("1.5")
    host.airgap("verify", "--installed")


def test_upgrade_and_rollback_under_systemd(connected: Connected, host: Container) -> None:
    host.airgap("install", f"/media/{NAME}-2.5")
    assert host.serves("2.5")
    assert "inactive" in host.sh(f"systemctl is-active {unit_of(host, 'engine', '1.5')}", None).out
    host.airgap("rollback")
    assert host.serves("1.5")
    assert "4" in host.ask(connected.port)
    host.airgap("rollback", "--version", "2.5")
    host.airgap("audit")


def test_version_that_keeps_crashing_returns_to_the_one_before(
    connected: Connected, host: Container
) -> None:
    """By the unit's OnFailure: the engine's own user may not switch anything."""
    host.airgap("rollback")
    host.airgap("install", f"/media/{NAME}-2.5")
    assert host.status()["2.5"]["probation_until"] is not None

    killed = 0

    def killed_and_returned() -> bool:
        nonlocal killed
        killed += kill_engine(host, "2.5")
        return host.serves("1.5")

    host.until(killed_and_returned, 180)
    assert killed > 1, "one crash is not given up"
    assert "4" in host.ask(connected.port)
    last = host.sh("tail -n 1 /var/lib/airgap/ledger.jsonl").out
    assert json.loads(last)["event"] == "return"


def test_revoked_version_is_flagged_and_no_way_back(connected: Connected, host: Container) -> None:
    host.airgap("install", f"/media/{NAME}-2.5")
    connected.revoke("1.5")
    connected.sealift("pack", NAME, "2.5", "-o", "debian/later")
    host.airgap("install", f"/media/later/{NAME}-2.5")
    assert host.status()["1.5"]["approval"] == "trust.revoked"
    assert host.status()["2.5"]["approval"] == "approved"
    assert host.airgap("rollback", expect=4).error["id"] == "trust.revoked"
    assert host.serves("2.5")


def test_uninstall_leaves_no_unit_and_no_process(host: Container) -> None:
    host.airgap("uninstall", NAME, "--stop", "--purge")
    units = host.sh("ls /etc/systemd/system/sealift-* 2>/dev/null", expect=None).out
    assert units == ""
    assert host.sh("systemctl --no-legend list-units 'sealift-*'").out.strip() == ""
    assert host.sh("find /var/lib/airgap/store /var/lib/airgap/deployments -type f").out == ""
