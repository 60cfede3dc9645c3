"""How a container is run: no network, no privileges, nothing to write but its own scratch folders,
the model read-only, and one socket to be reached by."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import engine_for
from airgap.format.artifacts import Image
from airgap.format.manifest import Manifest
from airgap.host.images.tool import LABEL, Tool
from airgap.host.paths import DeploymentPaths

# Where the container finds the folder of its socket, and the socket's name there. Short: unix(7)
# allows 107 bytes.
SOCKET_FOLDER = "/run/airgap"
SOCKET = "engine.sock"
# The other way: where a container that may ask the host for something finds it.
HOST_SOCKET = "host.sock"
# An id that Debian and others reserve and give to nobody: root outside is not even root inside.
USER = 65533
# For engines of several processes, which hand tensors to each other there: at most so much, taken
# as it is used. Container engines give 64 MB otherwise.
SHARED_MEMORY = "8g"
# Every GPU, as the host's own CDI file describes it.
GPUS = "nvidia.com/gpu=all"


@dataclass(frozen=True)
class Inside:
    """What runs in a container. `plan.argv` begins with the program, empty for the image's own;
    `place` has its scratch folders; `read` is mounted read-only; values of `secrets` stand in no
    command line; `reaches` is the one loopback port of this host that it is led to."""

    image: Image
    plan: LaunchPlan
    place: DeploymentPaths
    read: tuple[Path, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    gpus: bool = False
    shared_memory: bool = False
    reaches: int | None = None


def of_engine(manifest: Manifest, place: DeploymentPaths) -> Inside:
    """The engine of a deployment."""
    engine = engine_for(manifest)
    beside = (place.folder / n for n in ("adapters", "files", "chat_template.jinja"))
    return Inside(
        manifest.image_to_serve(),
        engine.contained(manifest, place, f"{SOCKET_FOLDER}/{SOCKET}"),
        place,
        read=(place.model, *beside),
        gpus=manifest.target.accelerator.startswith("cuda"),
        shared_memory=engine.shared_memory(manifest) > 0,
    )


@dataclass(frozen=True)
class Container:
    """One container to run: the engine's id of the image, its name, the label it bears."""

    image: str
    name: str
    label: str


def socket_folder(place: DeploymentPaths) -> Path:
    """Where the socket lies on the host."""
    return place.run / "socket"


def user() -> int:
    """Who runs inside: nobody, or the user that we are when that is not root."""
    return USER if os.geteuid() == 0 else os.geteuid()


def scratch(place: DeploymentPaths) -> tuple[Path, ...]:
    """The folders that the container may write to."""
    return (socket_folder(place), place.run / "home", place.tmp)


def environment(inside: Inside) -> dict[str, str]:
    """What the container is given. With GPUs hooks of the host itself run beside it: what an image
    would have loaded into every program must not reach them (CVE-2025-23266)."""
    env = dict(inside.plan.env)
    if inside.gpus:
        env |= {"LD_PRELOAD": "", "LD_AUDIT": ""}
    return env


def run_argv(
    tool: Tool, container: Container, inside: Inside, *, interactive: bool = False
) -> tuple[str, ...]:
    """The whole command line; the client takes the secrets from its own environment.
    `interactive`: what runs inside reads our stdin."""
    words = ["run", "--rm", "--pull=never", "--name", container.name]
    words += ["--label", f"{LABEL}={container.label}", "--hostname", "engine"]
    words += ["--network=none", "--read-only", "--cap-drop=all"]
    words += ["--security-opt=no-new-privileges", "--no-healthcheck", "--pids-limit=-1"]
    words += ["--stop-timeout=0"]  # whoever removes it waits for nothing that it does
    words += ["--user", f"{user()}:{user()}", "--workdir", str(inside.plan.cwd)]
    words += ["--interactive"] if interactive else []
    words += tool.run_words()
    if inside.shared_memory:
        words += [f"--shm-size={SHARED_MEMORY}"]
    if inside.gpus:
        words += ["--device", GPUS]
    for mount in mounts(inside, socket_folder(inside.place)):
        words += ["--mount", mount]
    for name, value in sorted(environment(inside).items()):
        words += ["--env", f"{name}={value}"]
    for name in sorted(inside.secrets):
        words += ["--env", name]
    program, *arguments = inside.plan.argv
    if program:
        words += ["--entrypoint", program]
    return tool.command(*words, container.image, *arguments)


def mounts(inside: Inside, socket: Path) -> Iterator[str]:
    """Everything lies at the path that it has outside, so that one plan holds for both; but
    `socket`, the folder of the socket."""
    place = inside.place
    yield _bind(socket, SOCKET_FOLDER)
    yield _bind(place.run / "home", str(place.run / "home"))
    yield _bind(place.tmp, str(place.tmp))
    yield _bind(place.tmp, "/tmp")  # noqa: S108 - what a program takes for granted, inside
    for path in inside.read:
        if path.exists():
            yield f"{_bind(path, str(path))},readonly"


def _bind(source: Path, target: str) -> str:
    return f"type=bind,source={source},target={target}"
