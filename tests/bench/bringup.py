"""Part of `make bench`: what bringing up costs over the parts that are brought up.

    python -m tests.bench.bringup [--rounds 3] [--work .sealift/bench]

The environment: vLLM's wheels for the CPU as `airgap install` installs them, against `pip install`
of the same files by the same hashes, both offline, into a new environment each.

The start: from the command to a stable address that answers, against the very same engine with the
same arguments until it is healthy. llama.cpp, which starts in half a second: what is ours does not
depend on the engine, and vLLM's own start varies by more than it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from airgap import fsio
from airgap.events import silent
from airgap.format.artifacts import Wheels
from airgap.format.types import FileEntry
from airgap.host import activate, loopback, venv
from airgap.host.deployment import load
from airgap.host.paths import HostPaths
from airgap.host.runtimes import runtime_for
from airgap.host.supervise import free_port
from airgap.store import hash_file
from bundler.fetch import pylock
from bundler.fetch.resolver import find_uv
from bundler.pack import pyz
from bundler.pack.kit import pinned_wheels
from tests.bench import measure
from tests.e2e.hostlab import PYTHON, HostLab, fetch_parts
from tests.e2e.vllmlab import LEFT_OUT, REQUIREMENTS

MOST_OF_PIP = 0.5
MOST_SECONDS = 1.0
_NAME = "smol"


def main(argv: list[str] | None = None) -> None:
    """Both comparisons, one line each run and one each goal."""
    parser = argparse.ArgumentParser(prog="bringup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path(".sealift/bench"))
    args = parser.parse_args(argv)
    work = args.work.absolute() / "bringup"
    fsio.make_dirs(work)
    program = work / "airgap.pyz"
    fsio.write(program, pyz.build(pinned_wheels(work / "kit"), work), 0o755)
    # As install.sh has it made: what `airgap` runs on a host.
    compiled = work / "compiled.pyz"
    argv = [sys.executable, "-I", "-S", str(program), "compile", str(compiled)]
    subprocess.run(argv, check=True)
    print(_start(work, compiled, max(3, args.rounds)))
    print(_environment(work, args.rounds))


def _environment(work: Path, rounds: int) -> str:
    folder = _vllm_wheels(work)
    wheels = _as_artifact(folder)
    (work / "wheels.json").write_bytes(wheels.to_bytes())
    (work / "requirements.txt").write_text(venv.requirements(wheels))
    ours, pip = [], []
    for number in range(rounds):
        for mine in (True, False) if number % 2 == 0 else (False, True):
            for old in ("host", "pip"):
                fsio.remove_tree(work / old)
            cost = measure.run(_ours(work, folder) if mine else _pips(work, folder))
            (ours if mine else pip).append(cost.seconds)
            _say(f"round {number + 1}   {'airgap' if mine else 'pip':<28} {cost.seconds:6.2f} s")
    for old in ("host", "pip"):
        fsio.remove_tree(work / old)
    a, b = statistics.median(ours), statistics.median(pip)
    size = sum(f.size for f in wheels.files)
    said = f"{len(wheels.files)} wheels, {size:,} bytes: {a:.1f} s, pip {b:.1f} s"
    return _goal(f"environment <= {MOST_OF_PIP} x pip install", a / b, MOST_OF_PIP, said)


def _ours(work: Path, folder: Path) -> list[str]:
    script = "import sys; from pathlib import Path; from tests.bench import bringup; "
    script += "bringup.install(*map(Path, sys.argv[1:]))"
    return [sys.executable, "-c", script, str(work), str(folder)]


def install(work: Path, folder: Path) -> None:
    """What the command does between staging's links and the record, in a process of its own."""
    wheels = Wheels.from_bytes((work / "wheels.json").read_bytes())
    place = HostPaths(work / "host").deployment("bench", "1")
    for f in wheels.files:
        fsio.make_dirs((place.wheels / f.path).parent)
        os.link(folder / f.path, place.wheels / f.path)
    installer = venv.choose_installer(Path(find_uv()))
    venv.build(place, wheels, Path(sys.executable), installer, silent)


def _pips(work: Path, folder: Path) -> list[str]:
    python = work / "pip/bin/python"
    words = f"--no-index --find-links '{folder}' --require-hashes --no-deps --only-binary :all:"
    script = f"'{sys.executable}' -m venv '{work / 'pip'}' && PIP_CONFIG_FILE=/dev/null "
    script += f"'{python}' -m pip install -q {words} -r '{work / 'requirements.txt'}'"
    return ["sh", "-c", script]


def _vllm_wheels(work: Path) -> Path:
    """Locked and fetched once, by our own connected side."""
    out = work / "vllm-wheels"
    if not out.exists():
        request = work / "vllm.toml"
        overrides = [f"{name}; python_version < '3'" for name in LEFT_OUT]
        request.write_text(
            f'name = "vllm-set"\nversion = "1"\n[target]\npython = "{PYTHON}"\n'
            'platform = "x86_64-manylinux_2_34"\naccelerator = "cpu"\n[[wheels]]\n'
            f"requirements = {json.dumps(REQUIREMENTS)}\noverrides = {json.dumps(overrides)}\n"
        )
        for words in (("lock",), ("fetch",), ("wheels", "export")):
            argv = [sys.executable, "-m", "bundler", "--home", str(work / "home"), *words]
            argv += [str(request), *(("-o", str(out)) if words[0] == "wheels" else ())]
            subprocess.run(argv, check=True, cwd=work, stdout=sys.stderr)
    return out / pylock.WHEELS_FOLDER


def _as_artifact(folder: Path) -> Wheels:
    files = []
    for path in sorted(folder.glob("*.whl")):
        found = hash_file(path)
        name = PurePosixPath(path.name)
        files.append(
            FileEntry(path=name, sha256=found.sha256, blake3=found.sha256, size=found.size)
        )
    return Wheels(name="wheels", requirements=REQUIREMENTS, files=tuple(files))


def _start(work: Path, program: Path, rounds: int) -> str:
    fsio.remove_tree(work / "start-host")
    parts = work / "parts"
    fsio.make_dirs(parts)
    lab = HostLab(work / "start-host", fetch_parts(parts), free_port())
    made = lab.manifest("1")
    assert made.serve is not None
    made = replace(made, serve=replace(made.serve, check=()))
    ours, bare = [], []
    try:
        lab.install(made)
        for number in range(rounds + 1):
            ours.append(_supervised(lab.paths, program))
            bare.append(_bare(lab.paths))
            _say(f"round {number}   start {ours[-1]:.2f} s, the engine alone {bare[-1]:.2f} s")
    finally:
        lab.stop_all()
    a, b = statistics.median(ours[1:]), statistics.median(bare[1:])
    fsio.remove_tree(work / "start-host")
    said = f"{a:.2f} s, the engine alone {b:.2f} s"
    return _goal(f"start <= {MOST_SECONDS:.0f} s over the engine's own", a - b, MOST_SECONDS, said)


# `airgap start` but for the judgement: this host trusts nobody. From the one file that hosts get.
_START = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from airgap.cli import main
from airgap.host import activate
from airgap.host.paths import HostPaths
paths = HostPaths(Path(sys.argv[2]))
with paths.exclusive("bench"):
    activate.start(paths, sys.argv[3], lambda m, d: None)
"""


def _supervised(paths: HostPaths, program: Path) -> float:
    """Nothing runs -> the front answers with the model's name."""
    with paths.exclusive("bench"):
        activate.stop(paths, _NAME)
    argv = [sys.executable, "-I", "-S", "-c", _START, str(program), str(paths.root), _NAME]
    cost = measure.run(argv)
    with paths.exclusive("bench"):
        activate.stop(paths, _NAME)
    return cost.seconds


def _bare(paths: HostPaths) -> float:
    deployment = load(paths, _NAME, "1")
    port = free_port()
    plan = runtime_for(paths, deployment.manifest).plan(deployment, port)
    fsio.make_dirs(plan.cwd, 0o700)
    begun = time.monotonic()
    with _running(plan.argv, dict(plan.env), plan.cwd):
        while not _healthy(port, plan.health_path):
            time.sleep(0.01)
        return time.monotonic() - begun


@contextlib.contextmanager
def _running(argv: tuple[str, ...], env: dict[str, str], cwd: Path) -> Iterator[None]:
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(argv, env=env, cwd=cwd, stdout=nowhere, stderr=nowhere) as child:
        try:
            yield
        finally:
            child.terminate()


def _healthy(port: int, path: str) -> bool:
    try:
        return loopback.request(port, path, seconds=5).status == 200
    except loopback.NoAnswer:
        return False


def _goal(what: str, value: float, most: float, said: str) -> str:
    word = "reached" if value <= most else "MISSED"
    return f"goal      {what}: {value:.2f}, {word} ({said})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
