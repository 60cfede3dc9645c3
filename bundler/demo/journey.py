"""`sealift demo`: the whole journey on one machine, with the real commands, each of them shown."""

from __future__ import annotations

import os
import platform
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from airgap import fsio
from airgap.errors import HostError, SealiftError
from airgap.events import Sink
from airgap.format.types import Target
from bundler.demo import checks
from bundler.demo.llama_cpp import LlamaCppRecipe
from bundler.demo.recipe import Place, Prepared, Recipe
from bundler.demo.vllm import VllmRecipe
from bundler.workspace import Workspace

OFFICERS = ("alice", "bob", "carol")
RECIPES: dict[str, Recipe] = {"vllm": VllmRecipe(), "llama.cpp": LlamaCppRecipe()}


@dataclass
class Demo:
    """Where everything of one demo lies, all of it under `folder`."""

    folder: Path
    port: int
    sink: Sink
    recipe: Recipe
    environment: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The connected side's home."""
        return self.folder / "connected"

    @property
    def media(self) -> Path:
        """The medium that an operator carries."""
        return self.folder / "media"

    @property
    def root(self) -> Path:
        """The isolated host's root."""
        return self.folder / "host"

    @property
    def sheet(self) -> Path:
        """The fingerprint sheet, which travels on another way."""
        return self.folder / "sheet" / "airgap-fingerprints.txt"

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        started = time.monotonic()
        yield
        self.timings[name] = time.monotonic() - started

    @property
    def policy(self) -> Path:
        """The receiver's policy, compiled; it goes to the host on another way, as the sheet."""
        return self.folder / "sheet" / "policy.json"

    def sealift(self, *words: str, expect: int = 0) -> None:
        """Run one command of ours and show it."""
        click.echo(f"\n$ sealift {' '.join(words)}")
        argv = [sys.executable, "-m", "bundler", "--home", str(self.home), *words]
        environment = {**os.environ, **self.environment}
        code = subprocess.run(argv, check=False, cwd=self.folder, env=environment).returncode
        if code != expect:
            raise _failed(f"sealift {words[0]}", code)


def play(demo: Demo) -> None:
    """The whole journey. Raises SealiftError when a step does not end as it must."""
    namespace = _namespace()
    target = _target()
    checks.libraries(demo.recipe.libraries)
    _announce(demo)
    checks.space(demo.folder, demo.recipe)
    _clear(demo)
    _title("1. Connected machine: officers and their trust")
    with demo.step("trust"):
        _set_up_trust(demo)
    _title("2. Connected machine: lock, fetch, scan")
    place = Place(demo.folder, Workspace.find(demo.home), target, demo.port, demo.sink)
    with ExitStack() as stack:
        with demo.step("parts"):
            prepared = stack.enter_context(demo.recipe.prepare(place))
        _build(demo, prepared)
    _title("3. Review desk: two of three officers approve")
    with demo.step("approve"):
        _approve(demo, "connected/builds/smollm2/1.0/packet")
    _title("4. Connected machine: onto the medium")
    with demo.step("pack"):
        demo.sealift("pack", "smollm2", "-o", "media")
        demo.sealift("kit", "-o", "media/kit")
    sheet = demo.media / "kit" / demo.sheet.name
    fsio.write(demo.sheet, sheet.read_bytes())
    _title("5. Isolated host: an empty network namespace")
    with demo.step("isolated"):
        _isolated(demo, namespace)
    _farewell(demo, prepared)


def _build(demo: Demo, prepared: Prepared) -> None:
    """Lock, fetch, scan and review, one command each so that each can be timed."""
    fsio.write(demo.folder / "smollm2.toml", prepared.request.encode())
    policy: tuple[str, ...] = ()
    if prepared.policy is not None:
        fsio.write(demo.folder / "demo-policy.toml", prepared.policy.encode())
        policy = ("--policy", "demo-policy.toml")
        demo.sealift("policy", "compile", "demo-policy.toml", "-o", "sheet/policy.json")
    demo.environment = dict(prepared.environment)
    for name in ("lock", "fetch"):
        with demo.step(name):
            demo.sealift(name, "smollm2.toml")
    demo.environment = {}
    with demo.step("scan"):
        demo.sealift("scan", "smollm2.toml", *policy)
        demo.sealift("review", "smollm2.toml")


def _title(text: str) -> None:
    click.echo(f"\n=== {text} " + "=" * max(3, 74 - len(text)))


def _namespace() -> list[str]:
    """The command that enters an empty network namespace, as root or as an ordinary user."""
    for argv in (["unshare", "-n"], ["unshare", "-rn"]):
        if os.geteuid() != 0 and argv[1] == "-n":
            continue
        try:
            if subprocess.run([*argv, "true"], check=False, capture_output=True).returncode == 0:
                return argv
        except FileNotFoundError:
            break
    raise HostError(
        "demo.namespace",
        "this machine does not let the demo make a network namespace",
        why="`unshare -n` needs root, `unshare -rn` needs unprivileged user namespaces",
        do="run it as root, or allow them: sysctl kernel.unprivileged_userns_clone=1",
    )


def _target() -> Target:
    if platform.machine() != "x86_64":
        raise HostError(
            "demo.machine",
            f"the demo's engine is built for x86_64, this is {platform.machine()}",
            why="PyPI has no prebuilt llama-server wheel for it",
            do="write a request with wheels for your machine and use `sealift build`",
        )
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return Target(python=python, platform="x86_64-manylinux_2_35", accelerator="cpu")


def _announce(demo: Demo) -> None:
    recipe = demo.recipe
    click.echo(f"Sealift plays its whole journey here: {recipe.title}, three officers")
    click.echo("of whom two approve, and an isolated host without a network.")
    click.echo(f"Everything it writes lies under {demo.folder}; delete that to undo it.")
    if recipe.fetched(demo.folder):
        click.echo("What it downloads is here from an earlier run.")
    else:
        total = sum(recipe.downloads.values())
        click.echo(f"It downloads, once, {total / 1e6:,.0f} MB:")
        for what, size in recipe.downloads.items():
            click.echo(f"  {size / 1e6:6.0f} MB  {what}")
    click.echo(f"It takes {recipe.disk_bytes / 1e9:.0f} GB of disk and, downloads apart,")
    click.echo(f"{recipe.minutes} on two cores.")


def _clear(demo: Demo) -> None:
    """Drop an earlier demo, but for what it downloaded."""
    pyz = demo.media / "kit" / "airgap.pyz"
    if pyz.exists() and demo.root.exists():
        argv = [sys.executable, "-I", str(pyz), "--root", str(demo.root), "stop", "smollm2"]
        subprocess.run(argv, check=False, capture_output=True)
    keep = {demo.home / "store", demo.home / "cache", demo.home}
    for recipe in RECIPES.values():
        keep |= recipe.keep(demo.folder)
    for folder in (demo.folder, demo.home):
        fsio.make_dirs(folder)
        for entry in folder.iterdir():
            if entry not in keep:
                fsio.remove_tree(entry)
    fsio.make_dirs(demo.media)


def _set_up_trust(demo: Demo) -> None:
    fsio.write(demo.folder / "passphrase", secrets.token_hex(16).encode() + b"\n", mode=0o600)
    for name in OFFICERS:
        demo.sealift("key", "new", name, "--passphrase-file", "passphrase")
    named = [w for n in OFFICERS for w in ("--officer", f"connected/keys/{n}.pub")]
    demo.sealift("trust", "init", "--threshold", "2", *named)
    _approve(demo, "connected/packets/init")


def _approve(demo: Demo, packet: str) -> None:
    for name in OFFICERS[:2]:
        key = ("--key", f"connected/keys/{name}.key", "--passphrase-file", "passphrase", "--yes")
        demo.sealift("approve", packet, *key)
    demo.sealift("collect", packet)


def _isolated(demo: Demo, namespace: list[str]) -> None:
    python = getattr(sys, "_base_executable", None) or sys.executable
    script = Path(__file__).with_name("isolated.py")
    argv = [*namespace, python, "-I", "-S", str(script)]
    argv += [str(demo.media), str(demo.sheet), str(demo.root), str(demo.port)]
    argv += [str(demo.policy)] if demo.policy.exists() else []
    code = subprocess.run(argv, check=False, cwd=demo.folder).returncode
    if code != 0:
        raise _failed("the isolated half", code)


def _failed(what: str, code: int) -> SealiftError:
    return HostError(
        "demo.failed",
        f"{what} ended with exit code {code}",
        why="its own message stands above",
        do="correct what it names, then run the demo again: what was downloaded is kept",
    )


def _farewell(demo: Demo, prepared: Prepared) -> None:
    _title("Done")
    if prepared.story:
        click.echo(f"model     {prepared.story}")
    total = sum(demo.timings.values())
    times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in demo.timings.items())
    click.echo(f"timings   {times}; together {total:.1f} s")
    click.echo(f"bundle    {demo.media / 'smollm2-1.0'}    (open REVIEW.html; read README.txt)")
    click.echo(f"trust     {demo.home / 'trust'}    host  {demo.root}")
    click.echo("next      your own model: copy a request from manifests/, edit, then")
    click.echo("          sealift trust init --solo && sealift build YOUR.toml")
