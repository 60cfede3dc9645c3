"""`sealift build` killed at any moment: the same command again ends in a packet that officers can
approve, and nothing half made is left."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.format.manifest import Manifest
from tests.e2e.hostlab import Parts
from tests.e2e.world import Connected
from tests.fault.web import File, Web, serving

FILES = {f"/{n}.json": json.dumps({"n": n, "rest": "x" * 200_000}).encode() for n in range(6)}
HEAD = """\
name = "lab"
version = "{version}"
summary = "A test"
[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "cpu"
"""


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Connected:
    """Officers and their first list; the requests need no part."""
    folder = tmp_path_factory.mktemp("desk")
    made = Connected(folder / "desk", Parts(wheel=folder, gguf=folder), 1)
    made.set_up()
    return made


def request(desk: Connected, web: Web, version: str) -> Path:
    text = HEAD.format(version=version)
    for path, data in FILES.items():
        web.files[path] = File(data, rate=1_500_000)
        sha256 = hashlib.sha256(data).hexdigest()
        text += f'[[file]]\nurl = "{web.url(path)}"\nsha256 = "{sha256}"\nname = "f{path[1]}"\n'
    file = desk.folder / "lab.toml"
    file.write_text(text)
    return file


def killed(desk: Connected, file: Path, event: str, label: str) -> None:
    """SIGKILL as soon as the build says so."""
    argv = [sys.executable, "-m", "bundler", "--home", str(desk.home), "--json", "build", str(file)]
    child = subprocess.Popen(
        argv, cwd=desk.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    said = []
    for line in child.stderr:
        said.append(line)
        found = json.loads(line)
        if (found["event"], found.get("label")) == (event, label):
            break
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, said
    child.stderr.close()


def test_killed_build_is_finished_by_the_same_command(desk: Connected, web: Web) -> None:
    file = request(desk, web, "1")
    for event, label in (("progress", "fetch"), ("progress", "scan"), ("line", "scan")):
        killed(desk, file, event, label)
        assert not list(desk.home.glob("builds/lab/1/packet"))
    desk.sealift("build", str(file))
    packet = "home/builds/lab/1/packet"
    desk.approve(packet, "alice", "bob")
    desk.sealift("collect", packet)
    desk.sealift("pack", "lab", "-o", "media")
    manifest = Manifest.from_bytes((desk.home / "builds/lab/1/manifest.json").read_bytes())
    names = {hashlib.sha256(data).hexdigest() for data in FILES.values()}
    assert names <= {b.sha256 for b in manifest.blobs()}
    assert {p.name for p in (desk.home / "store" / "partial").iterdir()} <= {"lock"}
    assert not list(desk.home.glob("builds/**/.tmp-*"))


def test_build_killed_after_its_last_step_left_a_packet_that_can_be_approved(
    desk: Connected, web: Web
) -> None:
    file = request(desk, web, "2")
    killed(desk, file, "line", "manifest")
    assert desk.sealift("build", str(file), expect=2).error["id"] == "trust.packet-open"
    desk.approve("home/builds/lab/2/packet", "alice", "bob")
    desk.sealift("collect", "home/builds/lab/2/packet")
