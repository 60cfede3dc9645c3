"""LiteLLM from its image: a container without a network, whose program knows TCP alone.

The container's own loopback is all it has. There a ferry leads the socket of the container to
LiteLLM, and what LiteLLM asks of the engine to the one port of this host that the container
reaches: the front of its NAME. docs/decisions/0067-gateway-from-an-image.md
"""

from __future__ import annotations

import json
import pkgutil
import subprocess
from pathlib import Path

from airgap import environment, fsio
from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import serving_plan
from airgap.format.artifacts import Image
from airgap.host import launch as keeper
from airgap.host import processes
from airgap.host.deployment import Deployment, load
from airgap.host.gateway import litellm
from airgap.host.images import contain, launch, tool
from airgap.host.images.launch import Inside
from airgap.host.paths import HostPaths

_PYTHON = ("python3", "-I")
_PORTS = (4000, 4001)


def plan(paths: HostPaths, deployment: Deployment, port: int) -> LaunchPlan:
    """How the supervisor starts it on 127.0.0.1:`port`: by a daemon of ours, the parent of its
    container. Writes what that reads."""
    place = deployment.paths.gateway
    settings = json.dumps(litellm.config(deployment)).encode()
    fsio.make_dirs(_given(deployment), 0o755)
    fsio.write(_given(deployment) / "config.json", settings, 0o644)
    fsio.write(_given(deployment) / "ferry.py", _ferry(), 0o644)
    litellm.master_key(place)
    keeper.give(paths, litellm.key_path(place))  # the door's, which need not run as we do
    words = ("contain-gateway", deployment.paths.name, deployment.paths.version, str(port))
    env = environment.private(place.run / "home", place.tmp) | environment.reached()
    return LaunchPlan(processes.daemon_command(paths, *words), env, place.run, litellm.HEALTH)


def main(paths: HostPaths, name: str, version: str, port: int) -> int:
    """Run its container; as `airgap.host.images.contain.run`."""
    return contain.run(paths, container(load(paths, name, version)), port)


def container(deployment: Deployment) -> Inside:
    """What runs in it: LiteLLM by the ferry."""
    serve = serving_plan(deployment.manifest)
    own = next(p for p in _PORTS if p != serve.port)
    given = _given(deployment)
    socket, host = (f"{launch.SOCKET_FOLDER}/{n}" for n in (launch.SOCKET, launch.HOST_SOCKET))
    ferry = (*_PYTHON, "-S", str(given / "ferry.py"), socket, str(own), str(serve.port), host)
    argv = (*ferry, "litellm", *litellm.arguments(given / "config.json", own))
    return _inside(deployment, argv, litellm.secrets_of(deployment.paths.gateway), serve.port)


def run_python(
    paths: HostPaths, deployment: Deployment, code: str, text: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    """Run `code` by the image's interpreter, shut in alike, with `text` on its stdin."""
    inside = _inside(deployment, (*_PYTHON, "-c", code), {}, None)
    engine = tool.choose(paths)
    named = contain.container_of(paths, engine, inside)
    argv = launch.run_argv(engine, named, inside, interactive=True)
    return subprocess.run(
        argv,
        env=dict(engine.env),
        input=text,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=seconds,
        check=False,
    )


def _inside(
    deployment: Deployment, argv: tuple[str, ...], secrets: dict[str, str], reaches: int | None
) -> Inside:
    place = deployment.paths.gateway
    env = environment.contained(place.run / "home", place.tmp) | litellm.variables()
    plan = LaunchPlan(argv, env, place.tmp, litellm.HEALTH)
    read = (_given(deployment),)
    return Inside(_image(deployment), plan, place, read, secrets, reaches=reaches)


def _given(deployment: Deployment) -> Path:
    """What the container reads of ours."""
    return deployment.paths.gateway.run / "inside"


def _ferry() -> bytes:
    """Its source, wherever this program was loaded from."""
    source = pkgutil.get_data(launch.__package__ or "", "ferry.py")
    assert source is not None  # noqa: S101 - it is a file of this program
    return source


def _image(deployment: Deployment) -> Image:
    image = deployment.manifest.gateway_image()
    assert image is not None  # noqa: S101 - the caller looked
    return image
