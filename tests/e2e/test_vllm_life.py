"""Life after the first installation by vLLM: start again, upgrade to an adapter, versions that
fail, roll-back, embeddings. In this order, on one host."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.adapters import expectation, fetch_peft, make_adapter
from tests.e2e.vllmlab import UV, World
from tests.e2e.world import QUESTION

pytestmark = pytest.mark.e2e

PROMPT = "The three primary colours are"
TOKENS = 12


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
