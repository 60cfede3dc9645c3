"""podman or docker as this program uses them: pull by digest, say what is there, run, remove."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from airgap import environment, fsio, limits
from airgap.errors import HostError
from airgap.format import canonical
from airgap.host import system
from airgap.host.paths import HostPaths

NAMES = ("podman", "docker")
# A pull of 20 GB onto a slow disk.
_PULL_SECONDS = 3600
_ASK_SECONDS = 120
# podman's own defaults may be more than this process has; its conmon has 32,768 processes at most.
_ULIMITS = (("nofile", resource.RLIMIT_NOFILE, 2**20), ("nproc", resource.RLIMIT_NPROC, 2**15))
# What a container may be told by label: the deployment that it belongs to.
LABEL = "airgap.deployment"


@dataclass(frozen=True)
class Seen:
    """What the engine says of an image: its id and the digests of manifests it goes by."""

    id: str
    digests: frozenset[str]


@dataclass(frozen=True)
class Answer:
    """What a command of the engine came to."""

    code: int
    out: str
    err: str


class Tool(Protocol):
    """A container engine."""

    @property
    def name(self) -> str:
        """`podman` or `docker`."""
        ...

    @property
    def env(self) -> Mapping[str, str]:
        """The environment of its commands."""
        ...

    def command(self, *words: str) -> tuple[str, ...]:
        """Its command line for a subcommand."""
        ...

    def pull_words(self, reference: str) -> tuple[str, ...]:
        """The subcommand that pulls from a loopback registry."""
        ...

    def run_words(self) -> tuple[str, ...]:
        """What `run` is given beside what every engine knows."""
        ...

    def removal(self, id: str) -> tuple[tuple[str, ...], ...]:
        """The subcommands that remove an image, by whatever names it goes, and all that is its own
        alone."""
        ...


def choose(paths: HostPaths) -> Tool:
    """The container engine of this host, podman before docker. HostError `host.no-containers`."""
    for name in NAMES:
        program = shutil.which(name, path=environment.SYSTEM_PATH)
        if program is not None:
            return Podman(program, paths) if name == "podman" else Docker(program, paths)
    raise HostError(
        "host.no-containers",
        "there is no container engine on this host",
        why=f"neither {' nor '.join(NAMES)} is on {environment.SYSTEM_PATH}",
        do="install podman from this host's own package source",
    )


def is_here(name: str) -> bool:
    """Whether this host has that container engine."""
    return shutil.which(name, path=environment.SYSTEM_PATH) is not None


def ask(tool: Tool, *words: str, seconds: float = _ASK_SECONDS) -> Answer:
    """Run a subcommand to its end. Raises HostError `host.containers` when it cannot be run."""
    argv = tool.command(*words)
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=dict(tool.env),
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise HostError(
            "host.containers",
            f"{tool.name} {words[0]} did not come to an end",
            why=str(e)[:300],
            do=f"look whether `{tool.name} info` works on this host",
        ) from e
    return Answer(done.returncode, done.stdout, done.stderr)


def pull(tool: Tool, reference: str) -> Answer:
    """Pull from a loopback registry."""
    return ask(tool, *tool.pull_words(reference), seconds=_PULL_SECONDS)


def inspect(tool: Tool, name: str) -> Seen | None:
    """What the engine has under that id or reference; None when it has nothing."""
    answer = ask(tool, "image", "inspect", name)
    if answer.code != 0:
        return None
    try:
        (found,) = json.loads(answer.out)
        digests = {str(d).partition("@")[2] for d in found.get("RepoDigests") or ()}
        digests |= {str(found["Digest"])} if found.get("Digest") else set()
        return Seen(str(found["Id"]).removeprefix("sha256:"), frozenset(digests))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def remove_containers(tool: Tool, label: str) -> None:
    """End and remove every container that bears the label: strays of a killed run."""
    found = ask(tool, "ps", "--all", "--quiet", "--filter", f"label={LABEL}={label}").out.split()
    if found:
        ask(tool, "rm", "--force", *found)


def _ulimit(name: str, kind: int, most: int) -> str:
    _, hard = resource.getrlimit(kind)
    value = most if hard == resource.RLIM_INFINITY else min(hard, most)
    return f"{name}={value}:{value}"


def label_of(folder: Path) -> str:
    """What tells one deployment of one root from all others."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Podman:
    """podman with a storage of its own under the root; what this host configures for others'
    containers (volumes, registries, variables) does not reach ours."""

    program: str
    paths: HostPaths
    name: str = "podman"

    @property
    def _folder(self) -> Path:
        return self.paths.containers

    @property
    def env(self) -> Mapping[str, str]:
        """Temporary blobs lie on the disk that holds the storage."""
        out = environment.private(self._folder / "home", self._folder / "tmp")
        out |= {"CONTAINERS_CONF": "/dev/null", "CONTAINERS_REGISTRIES_CONF": "/dev/null"}
        return out | environment.reached()

    def command(self, *words: str) -> tuple[str, ...]:
        """With everything of its own: what it keeps, what it runs, what it says."""
        volatile = self.volatile()
        argv = [self.program, "--root", str(self._folder / "storage")]
        argv += ["--runroot", str(volatile / "run"), "--tmpdir", str(volatile / "tmp")]
        argv += ["--events-backend", "none"]
        if system.init() != "systemd":
            argv += ["--cgroup-manager", "cgroupfs"]
        runc = shutil.which("runc", path=environment.SYSTEM_PATH)
        if runc is not None and system.cgroups() == "hybrid":  # crun refuses it
            argv += ["--runtime", runc]
        return (*argv, *words)

    def volatile(self) -> Path:
        """What is mounted and who runs: gone after a reboot."""
        name = f"airgap-{label_of(self.paths.root)}"
        base = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR", "")
        return Path(base) / name if base else self._folder / "volatile"

    def prepare(self) -> None:
        """Its folders, and the signature policy: what is pulled was approved by the officers."""
        for folder in (self._folder, self._folder / "tmp", self._folder / "home"):
            fsio.make_dirs(folder, 0o700)
        accept = {"default": [{"type": "insecureAcceptAnything"}]}
        path = self._folder / "policy.json"
        if not path.exists():
            fsio.write(path, canonical.encode(accept), 0o644)

    def pull_words(self, reference: str) -> tuple[str, ...]:
        """Plain HTTP, for it is our own registry on loopback."""
        self.prepare()
        policy = str(self._folder / "policy.json")
        return ("pull", "--quiet", "--tls-verify=false", "--signature-policy", policy, reference)

    def run_words(self) -> tuple[str, ...]:
        """Nothing of the image's own may be written, and its output is ours to bound."""
        limits_ = [w for limit in _ULIMITS for w in ("--ulimit", _ulimit(*limit))]
        return ("--read-only-tmpfs=false", "--log-driver=none", *limits_)

    def removal(self, id: str) -> tuple[tuple[str, ...], ...]:
        """Without force: a container that runs from it is in the way."""
        return (("untag", id), ("rmi", id))


@dataclass(frozen=True)
class Docker:
    """docker: the daemon's storage, shared with whatever else runs there."""

    program: str
    paths: HostPaths
    name: str = "docker"
    env: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        folder = self.paths.containers
        out = environment.private(folder / "home", folder / "tmp")
        object.__setattr__(self, "env", out | environment.reached())

    def command(self, *words: str) -> tuple[str, ...]:
        """The daemon has its own configuration."""
        return (self.program, *words)

    def pull_words(self, reference: str) -> tuple[str, ...]:
        """Loopback needs no word: docker takes plain HTTP from 127.0.0.0/8."""
        return ("pull", "--quiet", reference)

    def run_words(self) -> tuple[str, ...]:
        """Its output goes to the attached client only."""
        return ("--log-driver=none",)

    def removal(self, id: str) -> tuple[tuple[str, ...], ...]:  # noqa: ARG002
        """None: its images may be others' too."""
        return ()


def tail(answer: Answer) -> str:
    """The end of what a command said on stderr."""
    lines = [line for line in answer.err.splitlines() if line.strip()]
    return "\n".join(lines[-limits.LOG_TAIL_LINES :])[-2000:] or f"exit status {answer.code}"


def words(values: Sequence[Any]) -> tuple[str, ...]:
    """As words of a command line."""
    return tuple(str(v) for v in values)
