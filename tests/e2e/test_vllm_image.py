"""The real vLLM from an image, the whole way: a registry, the gate, two officers, a medium, a host
without a network, podman; the base model and an adapter answer as from wheels.

Six minutes, so it runs when it is asked for: `make test-long`, or SEALIFT_TEST_LONG=1.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host.images import tool
from airgap.host.paths import HostPaths
from tests.e2e.adapters import expectation, fetch_peft, make_adapter
from tests.e2e.hostlab import PYTHON, free_port
from tests.e2e.venv_image import Recipe, push_image
from tests.e2e.vllmlab import VllmHost, World
from tests.e2e.world import QUESTION

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.environ.get("SEALIFT_TEST_LONG") != "1",
        reason="six minutes; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
    ),
]
NAME = "smolimage"
PROMPT = "The three primary colours are"
REQUEST = """\
name = "{name}"
version = "1"
[target]
python = "{python}"
platform = "x86_64-manylinux_2_34"
accelerator = "cpu"
[[model]]
path = "{model}"
label = "SmolLM2"
publisher = "HuggingFaceTB"
licence = "Apache-2.0"
[[adapter]]
name = "tuned"
path = "{adapter}"
publisher = "tests"
licence = "Apache-2.0"
[[image]]
name = "engine"
reference = "{image}"
platform = "linux/amd64"
[serve]
engine = "vllm"
runtime = "image"
name = "smol"
adapters = ["tuned"]
port = {port}
max-model-len = 1024
max-num-seqs = 8
dtype = "float32"
enforce-eager = true
kv-cache-gib = 1
[[serve.check]]
prompt = "{question}"
expect = "4"
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def adapter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(world.connected.model, tmp_path_factory.mktemp("made") / "t", "SmolLM2")


@pytest.fixture(scope="module")
def served(
    world: World,
    adapter: Path,
    port: int,
    rootfs: Path,
    docker_registry: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[VllmHost]:
    """A host of its own that installed the image's bundle and serves on `port`."""
    desk, scratch = world.connected, tmp_path_factory.mktemp("image")
    venv = world.deployment("1.0") / "venv"
    recipe = Recipe(rootfs, venv.resolve(), ("vllm", "serve"))
    image = push_image(recipe, docker_registry, "team/vllm", scratch)
    shutil.rmtree(scratch)
    request = desk.folder / f"{NAME}.toml"
    values = {"name": NAME, "python": PYTHON, "question": QUESTION, "port": port}
    request.write_text(REQUEST.format(**values, model=desk.model, adapter=adapter, image=image))
    desk.sealift("build", str(request))
    packet = f"home/builds/{NAME}/1/packet"
    desk.approve(packet, "alice", "bob")
    desk.sealift("collect", packet)
    desk.sealift("pack", NAME, "-o", "images")
    root = tmp_path_factory.mktemp("isolated") / "root"
    host = VllmHost(root, desk.folder / "kit" / "airgap.pyz")
    try:
        host.trust(desk.home / "root.json")
        host.airgap("install", str(desk.folder / "images" / f"{NAME}-1"))
        yield host
    finally:
        host.close(NAME)
        if (root / "containers").exists():
            podman = tool.choose(HostPaths(root))
            assert isinstance(podman, tool.Podman)
            for words in (("rm", "--all", "--force"), ("rmi", "--all", "--force")):
                tool.ask(podman, *words)
            shutil.rmtree(podman.volatile(), ignore_errors=True)


def test_base_and_adapter_answer_from_the_image_as_peft_says(
    served: VllmHost, port: int, world: World, adapter: Path, test_cache: Path
) -> None:
    python = world.deployment("1.0") / "venv/bin/python"
    peft = fetch_peft(test_cache)
    said = expectation(python, peft, world.connected.model, adapter, PROMPT, 12)
    for model, wanted in (("smol", said["base"]), ("tuned", said["tuned"])):
        body = {"model": model, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
        reply = served.post(port, "completions", **body)
        assert reply["choices"][0]["text"] == wanted["text"]


def test_its_process_is_shut_in(served: VllmHost) -> None:
    podman = tool.choose(HostPaths(served.root))
    (container,) = tool.ask(podman, "ps", "--quiet").out.split()
    pid = tool.ask(podman, "inspect", "--format", "{{.State.Pid}}", container).out.strip()
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"NoNewPrivs:\s1", status) and re.search(r"CapEff:\s0{16}", status)
    assert re.search(r"Uid:\s65533", status)
    routes = Path(f"/proc/{pid}/net/route").read_text().splitlines()
    assert len(routes) == 1  # the heading
