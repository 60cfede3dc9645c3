"""`sealift lock --check`: what moved since the lock, with real sources; nothing is changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bundler.demo.hub import LocalHub
from tests.unit.fetch.hubs import WEIGHTS, adapter, model
from tests.unit.fetch.wheel_maker import make_wheel

REQUEST = """\
name = "tiny"
version = "1"
[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "cpu"
[[model]]
repo = "org/base"
[[model]]
name = "near"
path = "near"
[[adapter]]
name = "ad1"
repo = "me/lora"
base = "model"
[[wheels]]
requirements = ["tinywheel"]
find-links = ["wheels"]
"""


class Builder:
    """The command line in a folder with a request, a Hub, a model folder and a folder of wheels."""

    def __init__(self, folder: Path, hub: LocalHub) -> None:
        self.folder, self.hub, self.endpoint = folder, hub, hub.endpoint
        self.lock_file = folder / "home/builds/tiny/1/lock.json"

    def sealift(self, *words: str) -> tuple[int, str, dict[str, str]]:
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "PIP_", "UV_"))},
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(self.folder / "hf"),
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_NO_INDEX": "1",
        }
        first = [sys.executable, "-m", "bundler", "--home", "home"]
        more: dict[str, Any] = {"cwd": self.folder, "env": environment, "check": False}
        done = subprocess.run([*first, "--json", *words], capture_output=True, text=True, **more)
        last = done.stderr.strip().splitlines()[-1:]
        error = json.loads(last[0]) if done.returncode and last else {}
        if "--check" not in words or done.returncode == 2:
            return done.returncode, done.stdout, error
        plain = subprocess.run([*first, *words], capture_output=True, text=True, **more)
        assert plain.returncode == done.returncode
        # Each difference is a line for people, and an entry for programs.
        found = json.loads(done.stdout)
        count = len(found["moved"]) + len(found["unknown"])
        assert len(plain.stdout.splitlines()) == max(1, count)
        assert all(one["text"] in plain.stdout for one in found["moved"])
        assert all(one["id"] in plain.stdout for one in found["unknown"])
        return done.returncode, plain.stdout, error

    def state(self) -> dict[str, bytes]:
        """Every file of the home but uv's cache."""
        home = self.folder / "home"
        return {
            str(p): p.read_bytes()
            for p in home.rglob("*")
            if p.is_file() and (home / "cache") not in p.parents
        }


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[Builder]:
    (tmp_path / "r.toml").write_text(REQUEST)
    model(tmp_path / "near")
    make_wheel(tmp_path / "wheels", "tinywheel", "1.0")
    with LocalHub() as hub:
        hub.repository("org/base").add(model(tmp_path / "base"))
        hub.repository("me/lora").add(adapter(tmp_path / "lora"))
        made = Builder(tmp_path, hub)
        assert made.sealift("lock", "r.toml")[0] == 0
        yield made


def test_nothing_moved_is_zero_and_nothing_is_fetched(builder: Builder) -> None:
    before, asked = builder.state(), len(builder.hub.asked)
    code, out, _ = builder.sealift("lock", "--check", "r.toml")
    assert (code, out.startswith("unchanged")) == (0, True)
    assert builder.state() == before
    assert not any("/resolve/" in a.path for a in builder.hub.asked[asked:])


def test_each_thing_that_moved_is_named_and_nothing_is_changed(builder: Builder) -> None:
    folder, hub = builder.folder, builder.hub
    old = hub.repository("org/base").refs["main"]
    changes: dict[str, bytes | str] = {"config.json": "{}", "model.safetensors": WEIGHTS + b" "}
    new = hub.repository("org/base").add(model(folder / "base2", **changes)).id
    hub.repository("me/lora").add(model(adapter(folder / "lora2"), **{"more.json": "1"}))
    (folder / "near" / "tokenizer" / "vocab.json").write_text('{"a": 1}')
    (folder / "near" / "README.md").unlink()
    make_wheel(folder / "wheels", "tinywheel", "1.1")
    before = builder.state()
    code, out, error = builder.sealift("lock", "--check", "r.toml")
    assert (code, error["id"]) == (6, "lock.moved")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert f"model main was {old}, is {new}" in lines
    for line in (
        "model changed config.json",
        "model changed model.safetensors",
        "ad1 new more.json",
        "near gone README.md",
        "near changed tokenizer/vocab.json",
        "wheels gone tinywheel-1.0-py3-none-any.whl",
        "wheels new tinywheel-1.1-py3-none-any.whl",
    ):
        assert line in lines
    assert "model changed README.md" not in lines
    assert builder.state() == before


def test_a_request_that_was_never_locked_is_usage(builder: Builder) -> None:
    builder.lock_file.unlink()
    code, _, error = builder.sealift("lock", "--check", "r.toml")
    assert (code, error["id"]) == (2, "lock.missing")


def test_a_source_that_does_not_answer_hides_no_other_difference(builder: Builder) -> None:
    builder.hub.repository("org/base").moved_to = "evil/base"
    builder.hub.repository("me/lora").gated = True
    make_wheel(builder.folder / "wheels", "tinywheel", "1.1")
    (builder.folder / "near" / "README.md").unlink()
    before = builder.state()
    code, out, error = builder.sealift("lock", "--check", "r.toml")
    assert (code, error["id"]) == (6, "lock.incomplete")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert [line.split()[:3] for line in lines if " unknown " in line] == [
        ["ad1", "unknown", "source.gated:"],
        ["model", "unknown", "source.no-repo:"],
    ]
    assert "near gone README.md" in lines and "wheels gone tinywheel-1.0-py3-none-any.whl" in lines
    assert "of ad1, model nobody can say whether it moved" in error["what"]
    assert "answers that are missing: 2" in error["why"]
    assert "differences that were found: 3" in error["why"]
    assert builder.state() == before


def test_one_repository_that_vanished_and_nothing_else(builder: Builder) -> None:
    del builder.hub.repositories["org/base"]
    code, out, error = builder.sealift("lock", "--check", "r.toml")
    assert (code, error["id"]) == (6, "lock.incomplete")
    (line,) = out.splitlines()
    assert "source.no-repo: there is no 127.0.0.1/org/base: " in line and "check the name" in line


def test_a_hub_that_is_down_leaves_the_rest_compared(builder: Builder) -> None:
    (builder.folder / "near" / "README.md").unlink()
    builder.hub.stop()
    code, out, error = builder.sealift("lock", "--check", "r.toml")
    assert (code, error["id"]) == (6, "lock.incomplete")
    assert "gone     README.md" in out and out.count("unknown  source.unreachable") == 2
