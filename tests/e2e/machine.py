"""What tests ask of a whole host with systemd, whatever it is made of: a container or a VM."""

from __future__ import annotations

import json
import shlex
import time
from abc import ABC, abstractmethod
from typing import ClassVar

from tests.e2e.world import QUESTION, Done

AIRGAP = ("/opt/airgap/airgap", "--json")
ASK = """
import sys, urllib.request as u
r = u.Request(sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"})
sys.stdout.write(u.urlopen(r, timeout=120).read().decode())
"""


class Machine(ABC):
    """A host that runs commands for its tests. `tokens`: the longest answer it is asked for."""

    tokens: ClassVar[int] = 16

    @abstractmethod
    def sh(self, script: str, expect: int | None = 0) -> Done:
        """Run a shell script inside, as root."""

    @abstractmethod
    def reboot(self, seconds: float = 90) -> None:
        """`seconds`: for what starts with the host, an engine and its gateway among it."""

    def wait_booted(self, seconds: float = 90) -> None:
        """Until every unit that starts with the host has, or has failed."""
        self.until(
            lambda: (
                self.sh("systemctl is-system-running", expect=None).out.strip()
                in ("running", "degraded")
            ),
            seconds,
        )

    def put(self, path: str, text: str) -> None:
        """Write a file inside."""
        folder, file = shlex.quote(path.rpartition("/")[0]), shlex.quote(path)
        self.sh(f"mkdir -p {folder} && printf %s {shlex.quote(text)} > {file}")

    def install_kit(self, kit: str = "/kit") -> None:
        """As an installer does: from the kit into /opt/airgap."""
        self.sh(f"sh {kit}/install.sh {kit}/airgap-fingerprints.txt")

    def airgap(self, *words: str, expect: int = 0) -> Done:
        return self.sh(shlex.join((*AIRGAP, *words)), expect)

    def status(self) -> dict[str, dict[str, object]]:
        """Version -> what `airgap status` says."""
        lines = [json.loads(s) for s in self.airgap("status").out.splitlines()]
        return {str(s["version"]): s for s in lines if "version" in s}

    def serves(self, version: str) -> bool:
        return self.status().get(version, {}).get("state") == "serving"

    def ask(self, port: int, *, model: str = "smol") -> str:
        """A chat answer through the front, from inside; '' when there is none."""
        body = {"model": model, "messages": [{"role": "user", "content": QUESTION}]}
        text = json.dumps(body | {"max_tokens": self.tokens, "temperature": 0})
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        done = self.sh(shlex.join(("python3", "-c", ASK, url, text)), expect=None)
        return str(json.loads(done.out)["choices"][0]["message"]["content"]) if done.out else ""

    def until(self, true: object, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():  # type: ignore[operator]
            assert time.monotonic() < deadline, self.journal()
            time.sleep(0.5)

    def journal(self) -> str:
        return self.sh("journalctl --no-pager -n 60 2>&1", expect=None).out
