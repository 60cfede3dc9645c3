"""Both sides of the gap for end-to-end tests: the real command lines, a real namespace between.

`Connected` runs `sealift` in a home of its own. `Isolated` runs `airgap.pyz` inside an empty
network namespace that lives as long as the fixture, under a bare `python3 -I -S`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from tests.e2e.hostlab import ENGINE, PYTHON, Parts

BASE_PYTHON = str(getattr(sys, "_base_executable", None) or sys.executable)
RAISE_LOOPBACK = "from bundler.demo.isolated import raise_loopback; raise_loopback()"
# Raise loopback, say so, and hold the namespace open.
HOLD = f"{sys.executable} -c '{RAISE_LOOPBACK}'; echo up; exec sleep 100000"
PROJECT = Path(__file__).resolve().parents[2]
QUESTION = "What is 2+2? Answer with a number."


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """The error that `--json` printed as the last line of stderr."""
        found = json.loads(self.err.strip().splitlines()[-1])
        assert found["event"] == "error", self.err
        return dict(found)


def run(argv: list[str], cwd: Path, **kwargs: Any) -> Done:
    done = subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=900, **kwargs
    )
    return Done(done.returncode, done.stdout, done.stderr)


@dataclass
class Connected:
    """A builder's machine with three officers at desks of their own."""

    folder: Path
    parts: Parts
    port: int
    officers: tuple[str, ...] = ("alice", "bob", "carol")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def sealift(self, *words: str, expect: int = 0) -> Done:
        done = run(
            [sys.executable, "-m", "bundler", "--home", str(self.home), "--json", *words],
            self.folder,
        )
        assert done.code == expect, f"sealift {words}: {done.code}\n{done.out}\n{done.err}"
        return done

    def set_up(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pass").write_text("correct horse\n")
        for name in self.officers:
            self.sealift("key", "new", name, "--passphrase-file", "pass")
        named = [w for n in self.officers for w in ("--officer", f"home/keys/{n}.pub")]
        self.sealift("trust", "init", "--threshold", "2", *named)
        self.approve("home/packets/init", "alice", "bob")
        self.sealift("collect", "home/packets/init")

    def approve(self, packet: str, *names: str) -> None:
        for name in names:
            key = ["--key", f"home/keys/{name}.key", "--passphrase-file", "pass", "--yes"]
            # Carol did not sign the first root, so her desk wants its fingerprint.
            root = self.home / "root.json"
            if root.exists():
                key += ["--root-sha256", hashlib.sha256(root.read_bytes()).hexdigest()]
            self.sealift("approve", packet, *key)

    def request(self, version: str, **changes: str) -> Path:
        """Write a request; `changes` replace values by key (`expect`, `python`, ...)."""
        values = {
            "python": PYTHON,
            "platform": "x86_64-manylinux_2_35",
            "accelerator": "cpu",
            "expect": "4",
            "model": str(self.parts.gguf),
            "port": str(self.port),
            "top": "",
            **changes,
        }
        path = self.folder / f"smollm2-{version}.toml"
        text = textwrap.dedent("""\
            name = "smollm2"
            version = "{version}"
            {top}
            [target]
            python = "{python}"
            platform = "{platform}"
            accelerator = "{accelerator}"
            [[model]]
            path = "{model}"
            label = "SmolLM2"
            licence = "Apache-2.0"
            [[wheels]]
            requirements = ["{engine}"]
            [serve]
            engine = "llama.cpp"
            name = "smol"
            port = {port}
            max-model-len = 1024
            [[serve.check]]
            prompt = "{question}"
            expect = "{expect}"
            """)
        path.write_text(text.format(version=version, engine=ENGINE, question=QUESTION, **values))
        return path

    def build(self, version: str, **changes: str) -> str:
        """Request -> packet; returns the packet's folder."""
        self.sealift("build", str(self.request(version, **changes)))
        return f"home/builds/smollm2/{version}/packet"

    def bundle(self, version: str, out: str = "media", **changes: str) -> Path:
        """Request -> approved by two -> packed."""
        packet = self.build(version, **changes)
        self.approve(packet, "alice", "bob")
        self.sealift("collect", packet)
        self.sealift("pack", "smollm2", version, "-o", out)
        return self.folder / out / f"smollm2-{version}"

    def manifest_sha256(self, version: str) -> str:
        data = (self.home / "builds/smollm2" / version / "manifest.json").read_bytes()
        return hashlib.sha256(data).hexdigest()

    def revoke(self, version: str) -> None:
        sha256 = self.manifest_sha256(version)
        self.sealift("trust", "revoke", sha256)
        packet = f"home/packets/revoke-{sha256[:16]}"
        self.approve(packet, "alice", "carol")
        self.sealift("collect", packet)


@dataclass
class Isolated:
    """A host without a network: a namespace held open by one sleeping process."""

    root: Path
    pyz: Path
    holder: subprocess.Popen[bytes] = field(init=False)

    def __post_init__(self) -> None:
        flags = ["-n"] if os.geteuid() == 0 else ["-rn"]
        self.holder = subprocess.Popen(
            [
                "unshare",
                *flags,
                "sh",
                "-c",
                f"{sys.executable} -c '{RAISE_LOOPBACK}'; echo up; exec sleep 100000",
            ],
            stdout=subprocess.PIPE,
            cwd=PROJECT,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"up\n"

    def enter(self, *argv: str) -> list[str]:
        flags = ["-n"] if os.geteuid() == 0 else ["-U", "--preserve-credentials", "-n"]
        return ["nsenter", "-t", str(self.holder.pid), *flags, *argv]

    def argv(self, *words: str, root: Path | None = None) -> list[str]:
        return self.enter(
            BASE_PYTHON,
            *("-I", "-S", str(self.pyz), "--root", str(root or self.root), "--json"),
            *words,
        )

    def airgap(self, *words: str, expect: int = 0, root: Path | None = None) -> Done:
        done = run(self.argv(*words, root=root), self.root.parent)
        assert done.code == expect, f"airgap {words}: {done.code}\n{done.out}\n{done.err}"
        return done

    def trust(self, root_json: Path, *words: str, root: Path | None = None) -> None:
        sha256 = hashlib.sha256(root_json.read_bytes()).hexdigest()
        self.airgap("trust", "add", str(root_json), "--sha256", sha256, *words, root=root)

    def ask(self, port: int) -> dict[str, Any]:
        """A chat answer through the public port, from inside the namespace."""
        body = {
            "model": "smol",
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": 16,
            "temperature": 0,
        }
        script = (
            "import sys, urllib.request as u; kind = {'Content-Type': 'application/json'}; "
            "r = u.Request(sys.argv[1], sys.argv[2].encode(), kind); "
            "sys.stdout.write(u.urlopen(r, timeout=60).read().decode())"
        )
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        done = run(self.enter(BASE_PYTHON, "-c", script, url, json.dumps(body)), self.root.parent)
        assert done.code == 0, done.err
        return dict(json.loads(done.out))

    def serving(self) -> str | None:
        """The version that serves."""
        for line in self.airgap("status").out.splitlines():
            found = json.loads(line) if line.startswith("{") else {}
            if found.get("state") == "serving":
                return str(found["version"])
        return None

    def remembered(self) -> bytes:
        return (self.root / "trust.json").read_bytes()

    def close(self, name: str = "smollm2") -> None:
        if self.root.exists():
            run(self.argv("stop", name), self.root.parent)
        self.holder.send_signal(signal.SIGKILL)
        self.holder.wait()


def serving(connected: Connected, bundle: Path, tmp: pytest.TempPathFactory) -> Iterator[Isolated]:
    """A host that trusts the officers and serves `bundle`; for module fixtures."""
    made = Isolated(tmp.mktemp("isolated") / "root", connected.folder / "kit" / "airgap.pyz")
    try:
        made.trust(connected.home / "root.json")
        made.airgap("install", str(bundle))
        yield made
    finally:
        made.close()


def snapshot(root: Path) -> dict[str, tuple[int, int, str]]:
    """Every file and link below `root` by mode, size and content; what daemons write left out."""
    out = {}
    digests: dict[int, str] = {}  # by inode: a staged file is a link to its blob
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if any(p in ("run", "logs", "tmp", ".front", "venv") for p in Path(name).parts):
            continue
        st = path.lstat()
        if path.is_symlink():
            out[name] = (st.st_mode, 0, os.readlink(path))
        elif path.is_file():
            if st.st_ino not in digests:
                digests[st.st_ino] = blake3(path.read_bytes()).hexdigest()
            out[name] = (st.st_mode, st.st_size, digests[st.st_ino])
        else:
            out[name] = (st.st_mode, 0, "")
    return out
