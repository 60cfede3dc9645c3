"""The gateway of a deployment: staged beside the engine, supervised like it, checked through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from airgap import environment, fsio, limits
from airgap.engines.interface import LaunchPlan
from airgap.engines.registry import serving_plan
from airgap.errors import ServingError
from airgap.events import Line, Sink, Warn
from airgap.format.manifest import Manifest
from airgap.format.types import FileEntry, Serve
from airgap.host import asked, endpoint, interpreter, launch, listeners, logs, loopback, smoke, venv
from airgap.host.asked import Said
from airgap.host.deployment import Deployment, load
from airgap.host.gateway import litellm, tls
from airgap.host.paths import DeploymentPaths, HostPaths
from airgap.host.supervise import public_ports, supervise
from airgap.host.venv import Installer

_ASK_SECONDS = 60.0
_HEALTH_SECONDS = 10.0
_POLL_SECONDS = 0.2
_RUN_SECONDS = 60
Link = Callable[[Iterable[tuple[Path, FileEntry]]], None]
Tools = tuple[Path, Installer]


def choose(paths: HostPaths, manifest: Manifest, uv: Path | None, kit: Path | None) -> Tools | None:
    """Find what it needs of the host, before anything is written: for wheels the Python of the
    target and an installer, for an image a container engine. Raises HostError."""
    if manifest.gateway_image() is not None:
        from airgap.host.images import bring  # no other start pays for it

        bring.engine(paths)
    if manifest.gateway_wheels() is None:
        return None
    return interpreter.find(manifest.target.python), venv.choose_installer(uv, kit)


def stage(
    paths: HostPaths,
    place: DeploymentPaths,
    manifest: Manifest,
    link: Link,
    tools: Tools | None,
    sink: Sink,
) -> str | None:
    """What it runs from, after `choose`: its image, or an environment, by `link`ing its wheels;
    returns the SHA-256 of the environment's list of checksums."""
    if manifest.serve is None or manifest.serve.gateway is None:
        return None
    fsio.make_dirs(place.gateway.folder, 0o755)
    for folder in (place.gateway.run, place.gateway.logs):
        fsio.make_dirs(folder, 0o700)
    wheels = manifest.gateway_wheels()
    if wheels is None or tools is None:
        renew(paths, manifest, sink)
        return None
    link((place.gateway.wheels / f.path, f) for f in wheels.files)
    return venv.build(place.gateway, wheels, *tools, sink).sums


def renew(paths: HostPaths, manifest: Manifest, sink: Sink) -> None:
    """Have its image in the container engine, which may have lost it."""
    image = manifest.gateway_image()
    if image is not None:
        from airgap.host.images import bring  # no other start pays for it

        bring.bring(paths, image, sink)


def main(paths: HostPaths, name: str, version: str) -> int:
    """Keep the gateway of one deployment running; as `airgap.host.supervise.main`."""
    deployment = load(paths, name, version)
    return supervise(
        deployment.paths.gateway,
        partial(_plan, paths, deployment),
        f"the gateway of {deployment.title}",
        public_ports(deployment.manifest),
    )


def _plan(paths: HostPaths, deployment: Deployment, port: int) -> LaunchPlan:
    if deployment.manifest.gateway_image() is None:
        return litellm.plan(deployment, port)
    from airgap.host.gateway import inside  # no other start pays for it

    return inside.plan(paths, deployment, port)


def _run_python(paths: HostPaths, deployment: Deployment, code: str, text: str) -> Said:
    """Run `code` by the gateway's own interpreter, with no more rights than LiteLLM has."""
    if deployment.manifest.gateway_image() is not None:
        from airgap.host.gateway import inside  # no other start pays for it

        return inside.run_python(paths, deployment, code, text, _RUN_SECONDS)
    place = deployment.paths.gateway
    argv = (str(place.venv / "bin/python"), "-I", "-c", code)
    fsio.make_dirs(place.tmp, 0o700)
    env = environment.private(place.tmp, place.tmp)
    return asked.ask((*launch.shut_in(paths, _RUN_SECONDS), *argv), env, text, _RUN_SECONDS)


def has_gateway(deployment: Deployment) -> bool:
    """Whether its approved serving plan names one."""
    return serving_plan(deployment.manifest).gateway is not None


def wait_ready(paths: HostPaths, deployment: Deployment, sink: Sink) -> None:
    """Healthy, and a certificate there. Raises ServingError, HostError `gateway.certificate`."""
    place = deployment.paths.gateway
    begun = time.monotonic()
    while not _is_healthy(place):
        where = endpoint.live(place)
        if where is None or where.state != "up" or where.crashes:
            raise _failed(deployment, logs.tail(place.engine_log) or "it ended while it started")
        if time.monotonic() - begun > limits.GATEWAY_START_SECONDS:
            raise _failed(deployment, f"not healthy after {limits.GATEWAY_START_SECONDS} s")
        time.sleep(_POLL_SECONDS)
    sink(Line("gateway", f"healthy after {time.monotonic() - begun:.1f} s"))
    if tls.ensure(paths, partial(_run_python, paths, deployment)):
        text = f"the gateway vouches for itself; its certificate: SHA-256 {tls.fingerprint(paths)}"
        sink(Warn("gateway.self-signed", text))


def _is_healthy(place: DeploymentPaths) -> bool:
    where = endpoint.live(place)
    if where is None or where.state != "up" or not listeners.is_ours(where):
        return False
    try:
        return loopback.request(where.port, litellm.HEALTH, seconds=_HEALTH_SECONDS).status == 200
    except loopback.NoAnswer:
        return False


def check_through(deployment: Deployment, sink: Sink) -> None:
    """It lists every approved name, and passes a question on. Raises ServingError."""
    serve = serving_plan(deployment.manifest)
    where = endpoint.live(deployment.paths.gateway)
    if where is None:
        raise _failed(deployment, "its supervisor is gone")
    port = where.port
    bearer = {"Authorization": f"Bearer {litellm.master_key(deployment.paths.gateway)}"}
    path = "/v1/models"
    try:
        listed = loopback.decode(
            path, loopback.request(port, path, seconds=_ASK_SECONDS, fields=bearer)
        )
        names = {m["id"] for m in listed["data"]}
        missing = sorted({serve.name, *serve.adapters} - names)
        if missing:
            raise _failed(deployment, f"it does not list {', '.join(missing)}")
        if serve.check:
            _ask(deployment, serve, port, bearer)
    except (loopback.NoAnswer, KeyError, TypeError) as e:
        raise _failed(deployment, f"it does not answer as the OpenAI API does: {e}") from e
    sink(Line("gateway", f"passes {', '.join((serve.name, *serve.adapters))} on"))


def _ask(deployment: Deployment, serve: Serve, port: int, bearer: dict[str, str]) -> None:
    check = serve.check[0]
    path, question = smoke.question(serve, check)
    seconds = float(check.timeout_seconds)
    answer = loopback.request(port, path, body=question, seconds=seconds, fields=bearer)
    if answer.status != 200:
        shown = answer.body[:300].decode("utf-8", "replace")
        raise _failed(deployment, f"the first check got status {answer.status}: {shown!r}")


def _failed(deployment: Deployment, why: str) -> ServingError:
    return ServingError(
        "serving.gateway",
        f"the gateway of {deployment.title} does not pass requests on",
        why=why,
        do=f"look at {deployment.paths.gateway.engine_log}, then run the same command again",
    )
