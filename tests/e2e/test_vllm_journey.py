"""The main road: SmolLM2 in safetensors through the whole chain, served by vLLM from wheels in an
empty network namespace, with every system call that could reach out on record."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.hostlab import Parts, free_port, wait_for
from tests.e2e.vllmlab import POLICY, STRACE, Trace, VllmConnected, VllmHost, make_model, read_trace
from tests.e2e.world import QUESTION

pytestmark = pytest.mark.e2e

UV = str(Path(sys.executable).with_name("uv"))


@dataclass
class World:
    """Both sides, and what the first installation left on record."""

    connected: VllmConnected
    host: VllmHost
    v1: Path
    trace: Trace = field(init=False)
    answer: str = field(init=False)
    processes: list[str] = field(init=False)
    after_stop: list[str] = field(init=False)

    def chat(self, model: str = "smol") -> str:
        reply = self.host.post(
            self.connected.port,
            "chat/completions",
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=16,
            temperature=0,
        )
        assert reply["model"] == model
        return str(reply["choices"][0]["message"]["content"])

    def deployment(self, version: str) -> Path:
        return self.host.root / "deployments/smollm2" / version


@pytest.fixture(scope="module")
def world(
    parts: Parts, test_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """1.0 was installed under strace, asked, and stopped."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (make test installs it on Debian as root)")
    model = make_model(parts, test_cache)
    folder = tmp_path_factory.mktemp("vllm")
    connected = VllmConnected(folder, parts, free_port(), model=model)
    connected.set_up()
    connected.sealift("kit", "-o", "kit")
    v1 = connected.bundle("1.0")
    # So deep that no socket's path fits below it: unix(7) allows 107 bytes.
    root = tmp_path_factory.mktemp("host") / ("deep" * 15) / "root"
    root.parent.mkdir()
    made = World(connected, VllmHost(root, connected.folder / "kit" / "airgap.pyz"), v1)
    try:
        made.host.trust(connected.home / "root.json")
        connected.sealift("policy", "compile", str(POLICY), "-o", str(root.parent / "policy.json"))
        made.host.airgap("policy", "install", str(root.parent / "policy.json"))
        _first_installation(made)
        yield made
    finally:
        made.host.close()


def _first_installation(world: World) -> None:
    """verify, install, one answer, stop: all of it in one trace."""
    folder = world.host.root.parent
    words = " ".join(world.host.argv()[len(world.host.enter()) :])
    script = f"{words} verify {world.v1} && {words} install --uv {UV} {world.v1}; echo $? >code"
    with open(folder / "said.txt", "wb") as said:
        tracer = subprocess.Popen(
            world.host.enter(*STRACE, "-o", str(folder / "trace"), "sh", "-c", script),
            cwd=folder,
            stdout=said,
            stderr=said,
        )
        wait_for(lambda: (folder / "code").exists(), 600)
        wait_for(lambda: (folder / "code").read_text() != "", 5)
        assert (folder / "code").read_text() == "0\n", (folder / "said.txt").read_text()
        world.answer = world.chat()
        world.processes = world.host.processes()
        world.host.airgap("stop", "smollm2")
        tracer.wait(60)
    world.after_stop = world.host.processes()
    world.trace = read_trace(folder / "trace")


def test_it_answers_without_a_network(world: World) -> None:
    assert "4" in world.answer


def test_nothing_left_loopback_from_verify_to_the_answer(world: World) -> None:
    assert world.trace.outward() == []
    loopback = [a for a, _ in world.trace.calls("connect") if '"127.0.0.1"' in a]
    assert loopback, "the trace saw no connection at all"


def test_every_file_that_vllm_opened_is_the_approved_one(world: World) -> None:
    model = world.deployment("1.0") / "model"
    manifest = json.loads((world.v1 / "trust/targets/smollm2/1.0.manifest.json").read_bytes())
    approved = {
        f["path"]: f["sha256"]
        for artifact in manifest["artifacts"]
        if artifact["kind"] == "model"
        for f in artifact["files"]
    }
    opened = {Path(p) for p in world.trace.opened() if Path(p).is_relative_to(model)}
    files = {str(p.relative_to(model)) for p in opened if p.is_file()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= files
    for name in files:
        assert hashlib.sha256((model / name).read_bytes()).hexdigest() == approved[name]
    source = world.connected.model
    for name in files:
        assert hashlib.sha256((source / name).read_bytes()).hexdigest() == approved[name]


def test_vllm_was_started_with_the_approved_template(world: World) -> None:
    template = world.deployment("1.0") / "chat_template.jinja"
    assert str(template) in world.trace.opened()
    source = (world.connected.model / "chat_template.jinja").read_bytes()
    assert template.read_bytes() == source


def test_nothing_was_written_outside_the_root(world: World) -> None:
    ours = str(world.host.root.parent)
    allowed = re.compile(r"(?!/)|/dev/(null|tty)$|/dev/shm/|/proc/|" + re.escape(ours))
    assert [p for p in world.trace.opened(created=True) if not allowed.match(p)] == []
    assert [p for p in world.trace.sockets() if p.startswith("/")] == []


def test_stop_leaves_no_process_no_socket_no_scratch_file(world: World) -> None:
    assert any("vllm.entrypoints" in line for line in world.processes)
    assert world.after_stop == []
    place = world.deployment("1.0")
    assert list((place / "tmp").iterdir()) == []
    assert [p for p in place.rglob("*") if p.is_socket()] == []
