"""The main road: SmolLM2 in safetensors through the whole chain, served by vLLM from wheels in an
empty network namespace, with every system call that could reach out on record."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e.adapters import expectation, fetch_peft, make_adapter
from tests.e2e.hostlab import Parts, free_port, wait_for
from tests.e2e.vllmlab import POLICY, STRACE, Trace, VllmConnected, VllmHost, make_model, read_trace
from tests.e2e.world import QUESTION

pytestmark = pytest.mark.e2e

PROMPT = "The three primary colours are"
TOKENS = 12
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

    def install(self, bundle: Path, expect: int = 0) -> list[dict[str, object]]:
        """`airgap install`; returns its events."""
        done = self.host.airgap("install", "--uv", UV, str(bundle), expect=expect)
        return [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]

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
    shared = [p for p in world.trace.opened(created=True) if p.startswith("/dev/shm/")]
    assert [p for p in shared if Path(p).exists()] == []


def test_start_brings_it_back(world: World) -> None:
    begun = time.monotonic()
    world.host.airgap("start", "smollm2")
    print(f"start again: {time.monotonic() - begun:.1f} s")
    assert world.host.serving() == "1.0"
    assert world.chat() == world.answer


def test_logs_and_run_folder_are_the_owners_alone(world: World) -> None:
    log = (world.deployment("1.0") / "logs/engine.log").stat()
    assert log.st_mode & 0o077 == 0 and log.st_size > 0
    assert os.stat(world.deployment("1.0") / "run").st_mode & 0o077 == 0
    assert os.stat(world.deployment("1.0") / "tmp").st_mode & 0o077 == 0


@dataclass(frozen=True)
class Tuned:
    """Version 2.0: the same model and wheels with an adapter, and what peft says of both."""

    bundle: Path
    base: dict[str, object]
    tuned: dict[str, object]


@pytest.fixture(scope="module")
def tuned(world: World, test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """The approved check of 2.0 is what peft computed, so the host proves it once more."""
    connected = world.connected
    adapter = make_adapter(connected.model, tmp_path_factory.mktemp("made") / "tuned", "SmolLM2")
    python = world.deployment("1.0") / "venv/bin/python"
    said = expectation(python, fetch_peft(test_cache), connected.model, adapter, PROMPT, TOKENS)
    expect = re.escape(str(said["tuned"]["text"])[:20])
    tables = f'[[adapter]]\nname = "tuned"\npath = "{adapter}"\n'
    tables += 'publisher = "tests"\nlicence = "Apache-2.0"'
    check = f'prompt = "{QUESTION}"\nexpect = "4"\n[[serve.check]]\nmodel = "tuned"\n'
    check += f'api = "completion"\nmax-tokens = {TOKENS}\nprompt = "{PROMPT}"\n'
    check += f"expect = '{expect}'"
    bundle = connected.bundle("2.0", tables=tables, serve='adapters = ["tuned"]', check=check)
    return Tuned(bundle, said["base"], said["tuned"])


def test_killed_upgrade_is_finished_by_the_same_command(world: World, tuned: Tuned) -> None:
    """SIGKILL as soon as it says: taken in, environment, waiting for the engine."""
    for label in ("import", "venv", "start"):
        process = subprocess.Popen(
            world.host.argv("install", "--uv", UV, str(tuned.bundle)),
            cwd=world.host.root.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(json.loads(line))
            if said[-1].get("label") == label:
                break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stderr.close()
        assert said[-1].get("label") == label, f"it ended before it said {label}: {said}"
        assert world.host.serving() == "1.0"
        assert world.chat() == world.answer
    events = world.install(tuned.bundle)
    assert world.host.serving() == "2.0"
    started = [e["text"] for e in events if e.get("label") == "start" and "text" in e]
    assert "check 2/2 passed" in str(started[-1])


def test_two_versions_share_one_environment(world: World, tuned: Tuned) -> None:
    shared = list((world.host.root / "venvs").iterdir())
    assert len(shared) == 1
    for version in ("1.0", "2.0"):
        assert (world.deployment(version) / "venv").resolve() == shared[0] / "venv"


@pytest.mark.parametrize(("served", "who"), [("smol", "base"), ("tuned", "tuned")])
def test_base_and_adapter_answer_as_peft_says(
    world: World, tuned: Tuned, served: str, who: str
) -> None:
    reply = world.host.post(
        world.connected.port,
        "completions",
        model=served,
        prompt=PROMPT,
        max_tokens=TOKENS,
        temperature=0,
        logprobs=1,
    )["choices"][0]
    expected = getattr(tuned, who)
    assert reply["text"] == expected["text"]
    assert reply["logprobs"]["token_logprobs"] == pytest.approx(expected["logprobs"], abs=0.01)
    assert tuned.base["text"] != tuned.tuned["text"]


def test_version_that_fails_its_check_leaves_the_old_one_serving(world: World) -> None:
    check = f'prompt = "{QUESTION}"\nexpect = "^no model says this$"'
    bad = world.connected.bundle("3.0", check=check)
    done = world.host.airgap("install", "--uv", UV, str(bad), expect=9)
    assert done.error["id"] == "serving.check-failed"
    assert world.host.serving() == "2.0"
    assert world.chat() == world.answer
    assert not [line for line in world.host.processes() if "/3.0/" in line]


def test_version_that_cannot_start_says_why_in_our_words(world: World) -> None:
    """More tokens than the model has: vLLM's last lines are a traceback, its reason is above."""
    bad = world.connected.bundle("3.1", length="100000")
    done = world.host.airgap("install", "--uv", UV, str(bad), expect=9)
    assert done.error["id"] == "serving.engine-died"
    assert "serve.max-model-len is 100000 tokens, the model has" in done.error["why"]
    assert "max-model-len that the model has" in done.error["do"]
    assert world.host.serving() == "2.0"


def test_rollback_brings_the_version_before(world: World) -> None:
    world.host.airgap("rollback", "smollm2")
    assert world.host.serving() == "1.0"
    assert world.chat() == world.answer
    names = {m["id"] for m in world.host.get(world.connected.port, "models")["data"]}
    assert names == {"smol"}


def test_embeddings_by_the_pooling_runner(world: World) -> None:
    check = f'prompt = "{QUESTION}"\napi = "embedding"\nexpect = "^576 numbers$"'
    bundle = world.connected.bundle("4.0", serve='runner = "pooling"', check=check)
    world.install(bundle)
    assert world.host.serving() == "4.0"
    reply = world.host.post(world.connected.port, "embeddings", model="smol", input=["a", "b"])
    first, second = (d["embedding"] for d in reply["data"])
    assert len(first) == len(second) == 576 and first != second
