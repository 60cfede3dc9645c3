"""The facts: what an isolated host is, measured there (`airgap facts`) and carried out.

It says what a bundle must fit and nothing about whose host it is: no names of hosts, users,
networks or devices, no serial numbers, no addresses. Every text is of a narrow pattern, because the
connected side reads a file that came out of a place it does not control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from airgap.errors import FormatError
from airgap.format.codec import Document
from airgap.format.rules import Choice, Range, Text
from airgap.format.types import FileSize, Port, Seconds

# A model of CPU or GPU as its maker writes it: "AMD EPYC 9654 96-Core Processor".
Model = Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9 ().,@/+_-]{0,99}", 100, "a maker's model name")]
Numbers = Annotated[str, Text(r"[0-9]{1,5}(\.[0-9]{1,5}){0,3}", 24, "a version of numbers")]
MajorMinor = Annotated[str, Text(r"[0-9]{1,3}\.[0-9]{1,3}", 7, "a version such as 2.36")]
PythonVersion = Annotated[str, Text(r"3\.[0-9]{1,2}", 5, "a Python version such as 3.12")]
System = Annotated[str, Text(r"[a-z0-9._-]{1,40}( [A-Za-z0-9._-]{1,20})?", 61, "such as debian 12")]
Mount = Annotated[str, Text(r"/[A-Za-z0-9._/-]{0,99}", 100, "a mount point of plain characters")]
FileSystem = Annotated[str, Text(r"[a-z0-9._-]{1,32}", 32, "a file system such as ext4")]
Library = Annotated[str, Text(r"lib[A-Za-z0-9._+-]{1,60}", 63, "such as libgomp.so.1")]

# What engines choose their code by: x86-64 first, then 64-bit Arm, as /proc/cpuinfo spells them.
CPU_FEATURES = (
    *("avx", "avx2", "f16c", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16", "sha_ni"),
    *("asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2", "sha2"),
)
CpuFeature = Annotated[str, Choice(CPU_FEATURES)]
RUNTIMES = ("podman", "docker", "containerd", "nerdctl", "crun", "runc")
# Since which version (their release notes) a container engine takes `--device nvidia.com/gpu=all`.
# Of several engines the first is taken.
_CDI_SINCE = {"podman": (4, 1), "docker": (25, 0)}


# The oldest GPUs that a major version of CUDA computes on, by compute capability (NVIDIA's release
# notes: 12.0 dropped Kepler; 13.0 dropped Maxwell, Pascal and Volta).
_LEAST_CAPABILITY = {"12": (5, 0), "13": (7, 5)}


@dataclass(frozen=True, kw_only=True)
class PythonFact(Document):
    """An interpreter that the host has; `venv`: whether it can make environments with pip."""

    version: PythonVersion
    venv: bool


@dataclass(frozen=True, kw_only=True)
class Cpu(Document):
    """`cores`: how many a process may run on."""

    model: Model | None = None
    cores: Annotated[int, Range(1, 65536)]
    features: tuple[CpuFeature, ...]


@dataclass(frozen=True, kw_only=True)
class Disk(Document):
    """A mounted file system in bytes. `root`: the one that holds the state of airgap."""

    mount: Mount
    type: FileSystem
    size: FileSize
    free: FileSize
    root: bool


@dataclass(frozen=True, kw_only=True)
class Gpu(Document):
    """One NVIDIA GPU; `memory` in bytes."""

    model: Model
    memory: FileSize
    compute_capability: MajorMinor

    def lacks(self, cuda: str) -> str:
        """The compute capability that this major version of CUDA needs, where it has less."""
        least = _LEAST_CAPABILITY.get(cuda, (0, 0))
        have = tuple(int(n) for n in self.compute_capability.split("."))
        return "" if have >= least else f"{least[0]}.{least[1]}"


@dataclass(frozen=True, kw_only=True)
class Nvidia(Document):
    """The driver, the newest CUDA that it runs, and its GPUs in their order."""

    driver: Numbers
    cuda: MajorMinor | None = None
    gpus: tuple[Gpu, ...]


@dataclass(frozen=True, kw_only=True)
class Runtime(Document):
    """A program that runs containers."""

    name: Annotated[str, Choice(RUNTIMES)]
    version: Numbers

    @property
    def lacks_cdi(self) -> str:
        """What to install so that its containers get GPUs by CDI; empty where they do."""
        least = _CDI_SINCE.get(self.name, (0, 0))
        if tuple(int(n) for n in self.version.split(".")[:2]) >= least:
            return ""
        newer = f"{self.name} {least[0]}.{least[1]} or newer"
        if self.name == "docker":
            newer += ' with {"features": {"cdi": true}} in /etc/docker/daemon.json, or podman'
        return newer


def engine_of(runtimes: Sequence[Runtime]) -> Runtime | None:
    """The container engine that is taken of all that a host has."""
    return next((r for name in _CDI_SINCE for r in runtimes if r.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Clock(Document):
    """The host's time, and the newest time that its disk and its officers' signatures prove."""

    now: Seconds
    newest_known: Seconds

    @property
    def behind(self) -> bool:
        """Whether the clock shows a time that is certainly over."""
        return self.now < self.newest_known


@dataclass(frozen=True, kw_only=True)
class Facts(Document):
    """What a host is. `memory` in bytes; `listening`: TCP ports in use; `libraries`: of those that
    engines ask for, the ones that are there; `default_route`, `resolver`: configured, not tried."""

    schema: Annotated[str, Choice(("sealift.facts/1",))] = "sealift.facts/1"
    system: System | None = None
    kernel: Numbers
    machine: Annotated[str, Choice(("x86_64", "aarch64"))]
    glibc: MajorMinor | None = None
    init: Annotated[str, Choice(("systemd", "other"))]
    cgroups: Annotated[str, Choice(("v2", "v1", "hybrid", "none"))]
    selinux: Annotated[str, Choice(("enforcing", "permissive", "disabled", "absent"))]
    apparmor: bool
    pythons: tuple[PythonFact, ...]
    cpu: Cpu
    memory: FileSize
    disks: tuple[Disk, ...]
    nvidia: Nvidia | None = None
    cdi: bool
    runtimes: tuple[Runtime, ...]
    libraries: tuple[Library, ...]
    listening: tuple[Port, ...]
    clock: Clock
    default_route: bool
    resolver: bool

    def validate(self) -> None:
        for name, limit in _MOST.items():
            if len(getattr(self, name)) > limit:
                raise FormatError("format.value", name, f"more than {limit} entries")
        if self.nvidia is not None and len(self.nvidia.gpus) > _MOST_GPUS:
            raise FormatError("format.value", "nvidia.gpus", f"more than {_MOST_GPUS} entries")

    def gpu_memory(self) -> tuple[int, ...]:
        """Bytes of each GPU; none without one."""
        return tuple(g.memory for g in self.nvidia.gpus) if self.nvidia else ()

    def root_disk(self) -> Disk | None:
        """The file system of airgap's own state."""
        return next((d for d in self.disks if d.root), None)


# More of anything is not a host, it is somebody who wants to fill our memory.
_MOST = {"pythons": 32, "disks": 256, "runtimes": 16, "libraries": 64, "listening": 4096}
_MOST_GPUS = 64
