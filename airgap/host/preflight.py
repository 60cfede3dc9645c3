"""Does the bundle fit this host? Every failure is named at once, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from airgap import limits, policy
from airgap.engines.interface import Engine
from airgap.engines.registry import engine_for
from airgap.errors import DiskError, HostError, IntegrityError, PolicyError
from airgap.events import Line, Sink, Warn
from airgap.format.artifacts import Wheels
from airgap.format.manifest import Manifest
from airgap.host import containers_fit, fit, front, hardware, probe, system, venv
from airgap.host.deployment import read_record
from airgap.host.fit import Problem
from airgap.host.inspect import clock
from airgap.host.paths import HostPaths
from airgap.store import Store

_DISK = "disk"
_NETWORK = "network"
_SHM = Path("/dev/shm")  # noqa: S108 - measured, never written
_DOCKER_FOLDER = Path("/var/lib/docker")


class NotFit(HostError):
    """This host cannot run the bundle; `problems` are all the reasons."""

    def __init__(self, title: str, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "host.not-fit",
            f"{title} does not fit this host: {count}",
            why="\n".join(f"{p.what}: {p.why}" for p in problems),
            do="\n".join(dict.fromkeys(p.do for p in problems)),
        )


@dataclass(frozen=True)
class Needs:
    """Bytes that an install will write: blobs that the store lacks, exactly; estimates of the
    unpacked environments with room for logs, and of images in their engine's own storage."""

    import_bytes: int
    unpack_bytes: int
    image_bytes: int = 0


@dataclass(frozen=True)
class Share:
    """What one file system has free and is asked for, in bytes."""

    space: probe.Space
    needs: int


def needs(paths: HostPaths, manifest: Manifest) -> Needs:
    """Exact for the import; estimates for the rest, none when it is staged already."""
    store = Store(paths.store)
    missing = sum(b.size for b in manifest.blobs() if not store.has(b.sha256, b.size))
    if manifest.serve is None or _is_staged(paths, manifest):
        return Needs(missing, 0)
    packed = 0
    layers = sum(f.size for image in manifest.images_to_run() for f in image.files)
    for wheels in _environments(manifest):
        if not venv.is_built(paths, wheels, manifest.target.python):
            packed += sum(f.size for f in wheels.files)
    unpacked = packed * limits.WHEEL_UNPACK_FACTOR + limits.HOST_RESERVE_BYTES
    return Needs(missing, unpacked, layers * limits.IMAGE_UNPACK_FACTOR)


def _environments(manifest: Manifest) -> Iterator[Wheels]:
    """Wheels that are installed: the engine's, the gateway's."""
    if manifest.serve is not None and manifest.serve.runtime == "venv":
        yield manifest.wheels_to_serve()
    gateway = manifest.gateway_wheels()
    if gateway is not None:
        yield gateway


def per_mount(paths: HostPaths, wanted: Needs) -> tuple[Share, ...]:
    """What each file system must give: store, deployments and images may lie on three."""
    asked: dict[int, Share] = {}
    places = [(paths.store, wanted.import_bytes), (paths.deployments, wanted.unpack_bytes)]
    if wanted.image_bytes:
        places.append((_image_folder(paths), wanted.image_bytes))
    for folder, size in places:
        found = probe.space(folder)
        before = asked.get(found.device, Share(found, 0))
        asked[found.device] = Share(before.space, before.needs + size)
    return tuple(asked.values())


def _image_folder(paths: HostPaths) -> Path:
    """podman keeps ours under the root; docker's daemon has a place of its own."""
    names = {r.name for r in system.runtimes()}
    return _DOCKER_FOLDER if "docker" in names and "podman" not in names else paths.containers


def _is_staged(paths: HostPaths, manifest: Manifest) -> bool:
    try:
        return read_record(paths.deployment(manifest.name, manifest.version)) is not None
    except IntegrityError:
        return True  # staging says what is wrong with it; it takes no space here


def preflight(paths: HostPaths, manifest: Manifest, sink: Sink) -> Needs:
    """Emit what fits and what to watch; raise NotFit `host.not-fit` (exit 7) with all
    problems, or DiskError `disk.full` (exit 8) when space is the only one."""
    wanted = needs(paths, manifest)
    problems = tuple(find_problems(paths, manifest, wanted))
    for warning in warnings(paths, manifest):
        sink(warning)
    if problems and all(p.what == _DISK for p in problems):
        raise _no_space(problems)
    if [p.what for p in problems] == [_NETWORK]:
        raise _has_network(problems[0])
    if problems:
        raise NotFit(f"{manifest.name} {manifest.version}", problems)
    free = probe.space(paths.root).free
    total = wanted.import_bytes + wanted.unpack_bytes
    routes = probe.default_routes()
    route = f"default route over {', '.join(routes)}" if routes else "no default route"
    text = f"fits: {paths.root} has {free:,} bytes free (needs {total:,}), {route}"
    sink(Line("host", text))
    return wanted


def _no_space(problems: tuple[Problem, ...]) -> DiskError:
    """Space alone is lacking: the exit code says so."""
    return DiskError(
        "disk.full",
        "there is not enough space for this bundle; nothing was written",
        why="\n".join(p.why for p in problems),
        do="\n".join(p.do for p in problems),
    )


def _has_network(problem: Problem) -> PolicyError:
    """A way out alone is in the way: it is this host's own policy that says no."""
    return PolicyError(
        "policy.network",
        "this host is not isolated; nothing was written",
        why=problem.why,
        do=problem.do,
    )


def find_problems(paths: HostPaths, manifest: Manifest, wanted: Needs) -> Iterator[Problem]:
    """Everything that keeps the bundle from running here."""
    yield from _disk(paths, wanted)
    yield from _network(paths)
    serve = manifest.serve
    if serve is None:
        return
    yield from _engine(manifest)
    if manifest.images_to_run():
        yield from containers_fit.problems(manifest)
    yield from fit.machine(manifest)
    if any(_environments(manifest)):
        yield from fit.python(manifest)
        yield from fit.platform(manifest)
    yield from fit.accelerator(manifest, serve)
    yield from _port(paths, manifest)


def _disk(paths: HostPaths, wanted: Needs) -> Iterator[Problem]:
    for share in per_mount(paths, wanted):
        folder, free, size = share.space.folder, share.space.free, share.needs
        if size > free:
            yield Problem(
                _DISK,
                f"{folder} has {free:,} bytes free, {size:,} are needed",
                f"free {size - free:,} bytes there, or name another place with --root",
            )


def _network(paths: HostPaths) -> Iterator[Problem]:
    """Only where the host's policy asks; what is configured is read, never tried."""
    if not policy.load(paths.policy).refuse_network:
        return
    found = [f"a default route over {name}" for name in probe.default_routes()]
    if system.has_resolver():
        found.append("a name server in /etc/resolv.conf")
    if found:
        yield Problem(
            _NETWORK,
            f"this host has {' and '.join(found)}, and its policy says refuse-network",
            "take the route and the name server out of its configuration, or install a policy "
            "without refuse-network",
        )


def _engine(manifest: Manifest) -> Iterator[Problem]:
    try:
        engine = engine_for(manifest)
        engine.check(manifest)
    except HostError as e:
        yield Problem(e.what, e.why, e.do)
        return
    inside = manifest.serve is not None and manifest.serve.runtime == "image"
    if inside:
        return
    for library in engine.system_libraries(manifest.target.accelerator):
        if not probe.has_library(library.soname):
            yield Problem(
                "system library",
                f"{engine.name} needs {library.soname}, the loader does not find it",
                f"install {library.package} from this host's own package source",
            )
    yield from _processor(engine, manifest.target.accelerator)
    yield from _shared_memory(engine, engine.shared_memory(manifest))


def _processor(engine: Engine, accelerator: str) -> Iterator[Problem]:
    """Code of wheels for processors that this one is not ends with an illegal instruction."""
    wanted = engine.cpu_features(accelerator, probe.machine())
    lacking = [f for f in wanted if f not in hardware.cpu().features]
    if lacking:
        yield Problem(
            "processor",
            f"{engine.name}'s wheels need {', '.join(lacking)}, /proc/cpuinfo does not show it",
            "serve it on another host; in a virtual machine, give it the processor of its own host "
            "(`-cpu host`, `host-passthrough`)",
        )


def _shared_memory(engine: Engine, wanted: int) -> Iterator[Problem]:
    free = probe.space(_SHM).free if wanted else 0
    if free < wanted:
        yield Problem(
            "shared memory",
            f"{_SHM} has {free:,} bytes free, {engine.name} wants {wanted:,}",
            f"enlarge it: `mount -o remount,size=1G {_SHM}`, in a container --shm-size 1g",
        )


def _port(paths: HostPaths, manifest: Manifest) -> Iterator[Problem]:
    """Free, or held by the front of this very NAME."""
    assert manifest.serve is not None  # noqa: S101 - the caller returned otherwise
    port = manifest.serve.port
    ours = front.live(paths.front(manifest.name))
    if (ours is None or ours.port != port) and not probe.port_is_free(port):
        yield Problem(
            "port",
            f"another program listens on 127.0.0.1:{port}",
            f"stop it (`ss -ltnp 'sport = :{port}'` names it), or approve another serve.port",
        )
    gateway = manifest.serve.gateway
    if gateway is None:
        return
    door = front.live(paths.door(manifest.name))
    if (door is None or door.port != gateway.port) and not probe.port_is_free(gateway.port):
        yield Problem(
            "port",
            f"another program listens on port {gateway.port}, which is to be the gateway's",
            f"stop it (`ss -ltnp 'sport = :{gateway.port}'` names it), or approve another port",
        )


def warnings(paths: HostPaths, manifest: Manifest) -> Iterator[Warn]:
    """What may go wrong and may not."""
    newest = system.newest_file()
    if clock() < newest:
        text = f"the clock is behind this host's own newest files by {newest - clock():,} s: set it"
        yield Warn("host.clock", text)
    if manifest.serve is None:
        return
    if manifest.images_to_run() and system.selinux() == "enforcing":
        text = (
            "SELinux may keep the container from what it reads: once, run `semanage fcontext -a -t "
            f"container_file_t '{paths.deployments}(/.*)?'` and `restorecon -R {paths.root}`"
        )
        yield Warn("host.selinux", text)
    size = sum(f.size for f in manifest.model_to_serve().files)
    free = probe.memory_available()
    if manifest.target.accelerator == "cpu" and free is not None and free < size * 11 // 10:
        text = f"the model has {size:,} bytes and {free:,} bytes of memory are available"
        yield Warn("host.memory", text)
