"""LiteLLM from its image: a container without a network, whose program knows TCP alone.

The container's own loopback is all it has. There a ferry leads the socket of the container to
LiteLLM, and what LiteLLM asks of the engine to the one port of this host that the container
reaches: the front of its NAME. docs/decisions/0067-gateway-from-an-image.md
"""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path

from airgap import environment, fsio
from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import serving_plan
from airgap.format.artifacts import Image
from airgap.host import processes
from airgap.host.asked import Said
from airgap.host.deployment import Deployment, load
from airgap.host.gateway import litellm
from airgap.host.images import contain, launch
from airgap.host.images.launch import Inside
from airgap.host.paths import HostPaths

_PYTHON = ("python3", "-I")
# On the container's own loopback: LiteLLM, and where it asks for the engine.
_LITELLM_PORT, _ENGINE_PORT = 4000, 4001


def plan(paths: HostPaths, deployment: Deployment, port: int) -> LaunchPlan:
    """How the supervisor starts it on 127.0.0.1:`port`: by a daemon of ours, the parent of its
    container."""
    place = deployment.paths.gateway
    words = ("contain-gateway", deployment.paths.name, deployment.paths.version, str(port))
    env = environment.private(place.run / "home", place.tmp) | environment.reached()
    return LaunchPlan(processes.daemon_command(paths, *words), env, place.run, litellm.HEALTH)


def main(paths: HostPaths, name: str, version: str, port: int) -> int:
    """Run its container; as `airgap.host.images.contain.run`. Writes what it reads: a program that
    was replaced since the supervisor began brings its own."""
    deployment = load(paths, name, version)
    given = _given(deployment)
    settings = json.dumps(litellm.config(deployment, _ENGINE_PORT)).encode()
    fsio.make_dirs(given, 0o755)
    fsio.write(given / "config.json", settings, 0o644)
    fsio.write(given / "ferry.py", _ferry(), 0o644)
    return contain.run(paths, container(deployment), port)


def container(deployment: Deployment) -> Inside:
    """What runs in it: LiteLLM by the ferry."""
    given = _given(deployment)
    socket, host = (f"{launch.SOCKET_FOLDER}/{n}" for n in (launch.SOCKET, launch.HOST_SOCKET))
    ferry = (str(given / "ferry.py"), socket, str(_LITELLM_PORT), str(_ENGINE_PORT), host)
    program = ("litellm", *litellm.arguments(given / "config.json", _LITELLM_PORT))
    front = serving_plan(deployment.manifest).port
    secrets = litellm.secrets_of(deployment.paths.gateway)
    return _inside(deployment, (*_PYTHON, "-S", *ferry, *program), secrets, front)


def run_python(
    paths: HostPaths, deployment: Deployment, code: str, text: str, seconds: float
) -> Said:
    """Run `code` by the image's interpreter, shut in alike, with `text` on its stdin."""
    inside = _inside(deployment, (*_PYTHON, "-c", code), {}, None)
    return contain.run_once(paths, inside, text, seconds)


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
