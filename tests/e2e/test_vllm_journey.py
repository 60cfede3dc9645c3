"""The main road: SmolLM2 in safetensors through the whole chain, served by vLLM from wheels in an
empty network namespace, with every system call that could reach out on record."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from tests.e2e.vllmlab import World

pytestmark = pytest.mark.e2e


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
    shared = [p for p in world.trace.opened(created=True) if p.startswith("/dev/shm/")]
    assert [p for p in shared if Path(p).exists()] == []
