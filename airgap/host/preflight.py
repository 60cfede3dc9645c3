"""Does the bundle fit this host? Every failure is named at once, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from airgap import limits
from airgap.errors import DiskError, HostError, IntegrityError
from airgap.events import Line, Sink, Warn
from airgap.format.manifest import Manifest
from airgap.host import front, interpreter, probe
from airgap.host.deployment import read_record
from airgap.host.engines.registry import engine_for
from airgap.host.paths import HostPaths
from airgap.store import Store

_DISK = "disk"


@dataclass(frozen=True)
class Problem:
    """One reason why the bundle does not fit, in the three sentences of an error."""

    what: str
    why: str
    do: str


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
    """Bytes that an install will write: blobs that the store lacks, and the estimate of the
    unpacked environment with room for logs."""

    import_bytes: int
    unpack_bytes: int


def needs(paths: HostPaths, manifest: Manifest) -> Needs:
    """Exact for the import; an estimate for the environment, none when it is staged already."""
    store = Store(paths.store)
    missing = sum(b.size for b in manifest.blobs() if not store.has(b.sha256, b.size))
    if manifest.serve is None or _is_staged(paths, manifest):
        return Needs(missing, 0)
    packed = sum(f.size for f in manifest.wheels_to_serve().files)
    return Needs(missing, packed * limits.WHEEL_UNPACK_FACTOR + limits.HOST_RESERVE_BYTES)


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
    for warning in warnings(manifest):
        sink(warning)
    if problems and all(p.what == _DISK for p in problems):
        raise _no_space(problems)
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


def find_problems(paths: HostPaths, manifest: Manifest, wanted: Needs) -> Iterator[Problem]:
    """Everything that keeps the bundle from running here."""
    yield from _disk(paths, wanted)
    if manifest.serve is None:
        return
    yield from _engine(manifest)
    yield from _python(manifest)
    yield from _platform(manifest)
    yield from _accelerator(manifest)
    yield from _port(paths, manifest)


def _disk(paths: HostPaths, wanted: Needs) -> Iterator[Problem]:
    """Per file system: the store and the deployments may lie on two."""
    asked: dict[int, tuple[probe.Space, int]] = {}
    for folder, size in (
        (paths.store, wanted.import_bytes),
        (paths.deployments, wanted.unpack_bytes),
    ):
        found = probe.space(folder)
        asked[found.device] = (found, asked.get(found.device, (found, 0))[1] + size)
    for found, size in asked.values():
        if size > found.free:
            yield Problem(
                _DISK,
                f"{found.folder} has {found.free:,} bytes free, {size:,} are needed",
                f"free {size - found.free:,} bytes there, or name another place with --root",
            )


def _engine(manifest: Manifest) -> Iterator[Problem]:
    try:
        engine = engine_for(manifest)
        engine.check(manifest)
    except HostError as e:
        yield Problem(e.what, e.why, e.do)
        return
    for library in engine.system_libraries:
        if not probe.has_library(library.soname):
            yield Problem(
                "system library",
                f"{engine.name} needs {library.soname}, the loader does not find it",
                f"install {library.package} from this host's own package source",
            )


def _python(manifest: Manifest) -> Iterator[Problem]:
    try:
        interpreter.find(manifest.target.python)
    except HostError as e:
        yield Problem("Python", e.why, e.do)


def _platform(manifest: Manifest) -> Iterator[Problem]:
    """`x86_64-manylinux_2_34` runs on that machine with glibc 2.34 or newer (PEP 600)."""
    machine, _, tag = manifest.target.platform.partition("-manylinux_")
    major, minor = (int(x) for x in tag.split("_"))
    bring = f"bring a bundle locked for this host instead of {manifest.target.platform}"
    if probe.machine() != machine:
        yield Problem("machine", f"this is {probe.machine()}, the wheels are for {machine}", bring)
    libc = probe.glibc()
    if libc is None:
        yield Problem("C library", "this host's C library is not glibc", bring)
    elif libc < (major, minor):
        have = f"{libc[0]}.{libc[1]}"
        yield Problem("C library", f"glibc is {have}, the wheels need {major}.{minor}", bring)


def _accelerator(manifest: Manifest) -> Iterator[Problem]:
    wanted = manifest.target.accelerator
    if wanted.startswith("cuda") and not probe.has_nvidia_gpu():
        yield Problem(
            "GPU",
            f"the bundle is for {wanted}, and nvidia-smi shows no GPU here",
            "install the NVIDIA driver, or bring a bundle whose target.accelerator is cpu",
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


def warnings(manifest: Manifest) -> Iterator[Warn]:
    """What may go wrong and may not."""
    if manifest.serve is None:
        return
    size = sum(f.size for f in manifest.model_to_serve().files)
    free = probe.memory_available()
    if manifest.target.accelerator == "cpu" and free is not None and free < size * 11 // 10:
        text = f"the model has {size:,} bytes and {free:,} bytes of memory are available"
        yield Warn("host.memory", text)
