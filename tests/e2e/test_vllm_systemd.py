"""A bare Debian with systemd and no network, from the kit to a service people can depend on: vLLM
with an adapter behind LiteLLM, an upgrade under load, a version that does not start, a reboot, a
revocation, removal. Every process of it is under strace from the boot on.

One host, in this order. It takes eight minutes of two cores, so it runs when it is asked for:
`make test-long`, or SEALIFT_TEST_LONG=1.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.adapters import make_adapter
from tests.e2e.container import Container
from tests.e2e.hostlab import LITELLM
from tests.e2e.vllmlab import Trace, VllmConnected, World, read_trace
from tests.e2e.world import PROJECT, QUESTION

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.environ.get("SEALIFT_TEST_LONG") != "1",
        reason="eight minutes of two cores; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
    ),
]
NAME = "smollm2"
DOOR = 8443
PROMPT = "The three primary colours are"
AIRGAP = "/opt/airgap/airgap"
# strace as the first program of the container would be in init's place: -D makes it init's child.
TRACE = "strace -f --seccomp-bpf -A -qq -s 256 -e trace=connect,sendto,sendmsg,sendmmsg,bind"
BOOT = (*TRACE.split(), "-D", "-o", "/var/log/trace.daemons", "/sbin/init")
COMMANDS = "/var/log/trace.commands"


def build(connected: VllmConnected, version: str, length: int = 1024) -> Path:
    """A bundle with adapter and gateway, on a medium that the container sees."""
    made = connected.folder / "adapters" / "tuned"
    if not made.exists():
        make_adapter(connected.model, made, "SmolLM2")
    tables = f'[[adapter]]\nname = "tuned"\npath = "{made}"\npublisher = "tests"\n'
    tables += 'licence = "Apache-2.0"\n[[wheels]]\nname = "gateway"\n'
    tables += f'requirements = ["{LITELLM}"]'
    serve = 'wheels = "wheels"\nadapters = ["tuned"]\n'
    serve += f'[serve.gateway]\nwheels = "gateway"\nport = {DOOR}'
    return connected.bundle(version, out="debian", tables=tables, serve=serve, length=str(length))


@dataclass
class Served:
    """The container; `later`: 6.1 and 6.2, which are built while 6.0 is installed."""

    connected: VllmConnected
    host: Container
    later: dict[str, Future[Path]]
    key: str = ""
    events: list[dict[str, object]] = field(default_factory=list)

    def airgap(self, words: str, expect: int = 0) -> dict[str, object]:
        """A command under strace; the last thing it said."""
        argv = f"{TRACE} -o {COMMANDS} {AIRGAP} --json {words}"
        done = self.host.sh(argv, expect=None)
        said = [json.loads(s) for s in done.err.splitlines() if s.startswith("{")]
        assert done.code == expect, f"airgap {words}: {done.code}\n{done.out}\n{said[-5:]}"
        self.events += said
        return dict(said[-1]) if said else {}

    def status(self) -> dict[str, dict[str, object]]:
        """Version -> what `airgap status` says."""
        lines = self.host.sh(f"{AIRGAP} --json status").out.splitlines()
        return {s["version"]: s for s in map(json.loads, lines) if "version" in s}

    def serving(self) -> list[str]:
        return [v for v, s in self.status().items() if s["state"] == "serving"]

    def inside(self, *argv: str) -> list[str]:
        """A program of this machine in the container's network."""
        pid = self.host.podman("inspect", "-f", "{{.State.Pid}}", self.host.name).out.strip()
        return ["nsenter", "-t", pid, "-n", sys.executable, *argv]

    def ask(self, path: str, key: str | None = "", **body: object) -> tuple[int, str]:
        """Status and body of an answer at the door; a key of None sends none, '' the good one."""
        key = self.key if key == "" else key
        words = [f"https://127.0.0.1:{DOOR}/v1/{path}", key or "", json.dumps(body or None)]
        done = subprocess.run(
            self.inside("-c", _ASK, *words), capture_output=True, text=True, timeout=150
        )
        assert done.returncode == 0, done.stderr
        status, _, text = done.stdout.partition(" ")
        return int(status), text

    def says(self, model: str) -> str:
        """What that model answers, greedily."""
        body = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        status, text = self.ask("completions", model=model, **body)
        assert status == 200, text
        return str(json.loads(text)["choices"][0]["text"])

    def units(self) -> str:
        return self.host.sh("systemctl show -p Id,MainPID,ActiveState 'sealift-*'").out


_ASK = """
import ssl, sys, urllib.error, urllib.request as u
url, key, body = sys.argv[1:]
fields = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
asked = u.Request(url, None if body == "null" else body.encode(), fields)
lax = ssl.create_default_context()
lax.check_hostname, lax.verify_mode = False, ssl.CERT_NONE
try:
    answer = u.urlopen(asked, timeout=120, context=lax)
except urllib.error.HTTPError as e:
    answer = e
print(answer.status, answer.read().decode())
"""


@pytest.fixture(scope="module")
def served(
    world: World, rootfs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    world.host.airgap("stop", NAME)
    connected = world.connected
    build(connected, "6.0")
    (connected.folder / "kit" / "policy.json").write_bytes(
        (world.host.root.parent / "policy.json").read_bytes()
    )
    mounts = {connected.folder / "kit": "/kit", connected.folder / "debian": "/media"}
    host = Container(rootfs, tmp_path_factory.mktemp("container"), mounts, BOOT)
    with ThreadPoolExecutor(1) as pool:
        # More tokens than the model has: vLLM 6.2 ends while it starts.
        lengths = {"6.1": 1024, "6.2": 100_000}
        later = {v: pool.submit(build, connected, v, n) for v, n in lengths.items()}
        try:
            host.begin()
            yield Served(connected, host, later)
        finally:
            host.close()


def test_three_commands_and_a_key_from_the_kit_to_an_answer(served: Served) -> None:
    host = served.host
    sha256 = hashlib.sha256((served.connected.folder / "kit/root.json").read_bytes()).hexdigest()
    host.install_kit()
    served.airgap(f"trust add /kit/root.json --sha256 {sha256}")
    served.airgap("policy install /kit/policy.json")
    said = host.sh(f"{TRACE} -o {COMMANDS} {AIRGAP} keys add tests").out
    found = re.search(r"sk-airgap-\S+", said)
    assert found is not None
    served.key = found[0]
    served.airgap(f"install /media/{NAME}-6.0")
    print("; ".join(str(e["text"]) for e in served.events if "text" in e))
    assert len(host.sh("cat /proc/net/route").out.splitlines()) == 1, "it has a route"


def test_base_and_adapter_answer_by_name_with_a_key_and_nobody_without(served: Served) -> None:
    chat = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 16}
    status, text = served.ask("chat/completions", model="smol", temperature=0, **chat)
    assert status == 200
    assert "4" in json.loads(text)["choices"][0]["message"]["content"]
    listed = json.loads(served.ask("models")[1])["data"]
    assert {m["id"] for m in listed} == {"smol", "tuned"}
    assert served.says("smol") and served.says("tuned")
    assert served.says("smol") != served.says("tuned")
    for wrong in (None, "sk-airgap-wrong"):
        assert served.ask("chat/completions", wrong, model="smol", **chat)[0] == 401
    # Nobody but the door listens to others; 0100007F is 127.0.0.1 (proc(5)).
    rows = served.host.sh("cat /proc/net/tcp /proc/net/tcp6").out.splitlines()
    open_ports = [r.split()[1] for r in rows if " 0A " in r and ":" in r.split()[1]]
    assert [p for p in open_ports if not p.startswith("0100007F")] == [f"00000000:{DOOR:04X}"]


def test_four_daemons_run_as_their_own_user_with_less_exposure(served: Served) -> None:
    host = served.host
    pids = re.findall(r"MainPID=([1-9]\d*)", served.units())
    assert len(pids) == 4
    users = []
    for pid in pids:
        status = host.sh(f"cat /proc/{pid}/status").out
        assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"CapEff:\s0{16}", status)
        users.append(host.sh(f"stat -c %U /proc/{pid}").out.strip())
    # Who holds keys and certificate is none of those that run what the bundle brings.
    assert sorted(users) == ["sealift", "sealift", "sealift", "sealift-door"]
    shown = host.sh(f"{AIRGAP} --json service show {NAME}").out
    before = [float(x) for x in re.findall(r"without hardening: .*?: ([\d.]+)", shown)]
    after = [float(x) for x in re.findall(r"# exposure: .*?: ([\d.]+)", shown)]
    print("systemd-analyze security, before and after:", list(zip(before, after, strict=True)))
    daemons = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert len(daemons) == 4 and all(b > 9 and a < 3 for b, a in daemons), shown


def test_second_run_of_everything_changes_nothing(served: Served) -> None:
    listing = (
        "cd /var/lib/airgap && find . /opt/airgap /etc/systemd/system /etc/sysusers.d -type f "
        "! -path '*/run/*' ! -path '*/logs/*' ! -path '*/tmp/*' ! -path './store/*' "
        "! -path './venvs/*' -exec sha256sum {} + | sort -k 2; "
        "find store venvs -type f -printf '%p %T@ %s\\n' | sort"
    )
    before = served.host.sh(listing).out, served.units()
    served.host.install_kit()
    served.airgap("policy install /kit/policy.json")
    served.airgap(f"install /media/{NAME}-6.0")
    served.airgap(f"start {NAME}")
    after = served.host.sh(listing).out, served.units()
    changed = set(before[0].splitlines()) ^ set(after[0].splitlines())
    assert not changed and before[1] == after[1], sorted(changed)[:20]
    served.airgap("verify --installed")


def test_upgrade_under_load_loses_no_request_and_a_broken_one_returns(served: Served) -> None:
    """One client each of three kinds asks through both."""
    for version in served.later.values():
        version.result()
    hammer = subprocess.Popen(
        served.inside("-m", "tests.e2e.hammer", str(DOOR), served.key, "1"),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    begun = time.monotonic()
    try:
        served.airgap(f"install /media/{NAME}-6.1")
        assert served.serving() == ["6.1"]
        print(f"upgrade under load: {time.monotonic() - begun:.1f} s")
        error = served.airgap(f"install /media/{NAME}-6.2", expect=9)
        assert error["id"] == "serving.engine-died"
        assert "serve.max-model-len is 100000 tokens, the model has" in str(error["why"])
        assert served.serving() == ["6.1"]
    finally:
        seen = json.loads(hammer.communicate("")[0])
    print("answers:", seen["right"])
    assert seen["wrong"] == []
    assert all(seen["right"].get(k, 0) > 3 for k in ("keep-alive", "fresh", "stream"))
    left = served.host.sh("systemctl --no-legend list-units 'sealift-*'").out
    assert "gateway-6.1" in left and "6.0" not in left and "6.2" not in left, left


def test_it_comes_back_after_a_reboot(served: Served) -> None:
    begun = time.monotonic()
    served.host.reboot(300)
    served.host.until(
        lambda: "active" in served.host.sh(f"systemctl is-active sealift-{NAME}", None).out.split(),
        200,
    )
    print(f"reboot to serving: {time.monotonic() - begun:.1f} s")
    assert served.serving() == ["6.1"]
    assert served.says("smol") != served.says("tuned")
    served.airgap("verify --installed")
    served.airgap("audit")


def test_revoked_version_is_flagged_and_no_way_back(served: Served) -> None:
    served.connected.revoke("6.0")
    served.connected.sealift("pack", NAME, "6.1", "-o", "debian/later")
    before = served.units()
    served.airgap(f"install /media/later/{NAME}-6.1")
    assert served.units() == before
    status = served.status()
    assert (status["6.0"]["approval"], status["6.1"]["approval"]) == ("trust.revoked", "approved")
    assert served.airgap("rollback", expect=4)["id"] in ("trust.revoked", "host.no-rollback")
    assert served.serving() == ["6.1"] and served.ask("models")[0] == 200


def test_removal_leaves_no_unit_no_process_no_file(served: Served) -> None:
    served.airgap(f"uninstall {NAME} --stop --purge")
    host = served.host
    assert host.sh("ls /etc/systemd/system | grep sealift", expect=None).out == ""
    assert host.sh("systemctl --no-legend list-units 'sealift-*'").out.strip() == ""
    assert host.sh("cd /var/lib/airgap && find store deployments venvs -type f").out == ""
    assert host.sh("ls /dev/shm").out == ""
    owned = "for p in /proc/[0-9]*; do case $(stat -c %U $p) in sealift*) echo $p;; esac; done"
    assert host.sh(owned, expect=None).out == ""


def test_nothing_left_loopback_from_the_first_boot_on(served: Served, tmp_path: Path) -> None:
    loopback = 0
    for name in ("daemons", "commands"):
        served.host.podman("cp", f"{served.host.name}:/var/log/trace.{name}", str(tmp_path / name))
        trace: Trace = read_trace(tmp_path / name)
        assert outward(trace) == []
        loopback += sum('"127.0.0.1"' in a for a, _ in trace.calls("connect"))
    assert loopback > 100, "the trace saw hardly any connection"


def outward(trace: Trace) -> list[str]:
    """But the door's, which is what it is for."""
    return [a for a in trace.outward() if f"htons({DOOR})" not in a or '"0.0.0.0"' not in a]
