"""An engine's container as podman's own Quadlet units: text, and nothing else.

For hosts that keep every container by Quadlet. What our daemons do is not there: no smoke test, no
switch, no judgement when the host comes up (docs/decisions/0054-quadlet.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from airgap.engines.registry import serving_plan
from airgap.errors import HostError
from airgap.host.deployment import Deployment
from airgap.host.images import bring, launch
from airgap.host.images.launch import Inside
from airgap.host.images.tool import Podman
from airgap.host.paths import HostPaths
from airgap.host.systemd.units import quoted, text_of

_PROXY = "/usr/lib/systemd/systemd-socket-proxyd"
_SETPRIV = "/usr/bin/setpriv"


def render(paths: HostPaths, deployment: Deployment) -> dict[str, str]:
    """File name -> text: the container, and the loopback port that leads to its socket.

    Raises HostError `host.no-quadlet` for an engine that runs from wheels or by docker.
    """
    manifest = deployment.manifest
    podman = bring.engine(paths) if serving_plan(manifest).runtime == "image" else None
    if not isinstance(podman, Podman):
        raise HostError(
            "host.no-quadlet",
            f"{deployment.title} has no Quadlet unit",
            why="Quadlet is podman's, and this engine runs "
            + ("by docker" if podman is not None else "from wheels"),
            do="use `airgap service install`: systemd keeps it by ordinary units",
        )
    name = f"sealift-{manifest.name}-container"
    folder = Path("/run") / name
    return {
        f"{name}.container": _container(podman, deployment, folder),
        f"{name}-port.socket": text_of(
            ("Unit", [f"Description=Sealift {manifest.name}: port"]),
            ("Socket", [f"ListenStream=127.0.0.1:{serving_plan(manifest).port}"]),
            ("Install", ["WantedBy=sockets.target"]),
        ),
        f"{name}-port.service": text_of(
            ("Unit", [f"Description=Sealift {manifest.name}: from the port to the container"]),
            (
                "Service",
                [
                    # As the container's user, whom no list of users knows (User= wants one that
                    # does): a link in the place of the socket leads to nothing of root's.
                    f"ExecStart={_SETPRIV} --reuid={launch.user()} --regid={launch.user()} "
                    f"--clear-groups {_PROXY} {quoted(str(folder / launch.SOCKET))}",
                    "CapabilityBoundingSet=CAP_SETUID CAP_SETGID",
                    "NoNewPrivileges=yes",
                    "ProtectSystem=strict",
                    "PrivateTmp=yes",
                ],
            ),
        ),
    }


def _container(podman: Podman, deployment: Deployment, folder: Path) -> str:
    manifest, place = deployment.manifest, deployment.paths
    inside = launch.of_engine(manifest, place)
    scratch = (folder, place.run / "home", place.tmp)
    user = str(launch.user())
    words = " ".join(quoted(str(p)) for p in scratch)
    return text_of(
        (
            "Unit",
            [
                f"Description=Sealift {deployment.title}",
                "After=local-fs.target",
                "StartLimitIntervalSec=0",  # as our own units: it is tried for ever
            ],
        ),
        ("Container", [*_keys(podman, manifest.name, inside), *_mounts(inside, folder)]),
        (
            "Service",
            [
                "Environment=CONTAINERS_CONF=/dev/null CONTAINERS_REGISTRIES_CONF=/dev/null",
                f"ExecStartPre=/usr/bin/rm -rf {words}",
                f"ExecStartPre=/usr/bin/install -d -m 0700 -o {user} -g {user} {words}",
                "Restart=always",
                "RestartSec=1",
            ],
        ),
        ("Install", ["WantedBy=multi-user.target"]),
    )


def _keys(podman: Podman, name: str, inside: Inside) -> Iterator[str]:
    """The same container as airgap.host.images.launch runs."""
    program, *arguments = inside.plan.argv
    yield f"GlobalArgs={' '.join(quoted(w) for w in podman.command()[1:])}"
    yield f"Image={bring.config_digest(podman.paths, inside.image)}"
    yield f"ContainerName=sealift-{name}"
    if program:
        yield f"Entrypoint={quoted(program)}"
    yield f"Exec={' '.join(quoted(w) for w in arguments)}"
    yield from ("Pull=never", "Network=none", "ReadOnly=true", "ReadOnlyTmpfs=false")
    yield from ("DropCapability=all", "NoNewPrivileges=true", "HostName=engine")
    yield from (f"User={launch.user()}", f"Group={launch.user()}")
    yield f"WorkingDir={inside.plan.cwd}"
    yield from ("LogDriver=passthrough", "PidsLimit=-1", "PodmanArgs=--no-healthcheck")
    if inside.shared_memory:
        yield f"ShmSize={launch.SHARED_MEMORY}"
    if inside.gpus:
        yield f"AddDevice={launch.GPUS}"
    for key, value in sorted(launch.environment(inside).items()):
        yield f"Environment={quoted(f'{key}={value}')}"


def _mounts(inside: Inside, folder: Path) -> Iterator[str]:
    for mount in launch.mounts(inside, folder):
        yield f"Mount={quoted(mount)}"
