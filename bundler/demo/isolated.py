"""The isolated half of the demo. Run inside an empty network namespace by a bare `python3 -I -S`:
standard library only, as a host would have it. Everything else is done by airgap.pyz.

argv: MEDIA SHEET ROOT PORT [POLICY]
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_QUESTION = "What is 2+2? Answer with a number."


def say(text: str) -> None:
    """A line of the story."""
    print(text, flush=True)


def raise_loopback() -> None:
    """Bring `lo` up by ioctl (netdevice(7)): no iproute2 needed, also as an ordinary user."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(s, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(s, _SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | _IFF_UP, b""))


def show_isolation() -> None:
    """Say what network there is: one interface, no route, and what a connection meets."""
    interfaces = [line.split(":")[0].strip() for line in _lines("/proc/net/dev")[2:]]
    routes = _lines("/proc/net/route")[1:]
    try:
        socket.create_connection(("192.0.2.1", 443), timeout=2).close()
        outside = "REACHED"
    except OSError as e:
        outside = e.strerror or str(e)
    say(f"          interfaces: {', '.join(interfaces)}; routes: {len(routes)}; outside: {outside}")
    if outside == "REACHED":
        sys.exit("this is no isolated host")


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def run(*argv: str, expect: int = 0) -> None:
    """Run and show a command; end the demo when it does not exit as expected."""
    words = list(argv)
    if words[0] == sys.executable:
        # As a person types it; -I -S only prove that nothing else of this machine is used.
        words[:4] = ["python3", "airgap.pyz"]
    say(f"\n$ {' '.join(words)}")
    code = subprocess.run(argv, check=False).returncode
    if code != expect:
        sys.exit(f"the command ended with {code}, expected {expect}")


def ask(port: int) -> str:
    """One question to the OpenAI API."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": _QUESTION}],
        "max_tokens": 32,
        "temperature": 0,
    }
    headers = {"Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = json.loads(connection.getresponse().read())
    text: str = answer["choices"][0]["message"]["content"]
    return text


def spoil_a_copy(bundle: Path, copy: Path) -> str:
    """A copy of the bundle with one byte of the largest file changed; returns that file's name."""
    shutil.copytree(bundle, copy, copy_function=os.link)
    largest = max((copy / "blobs" / "sha256").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.unlink()
    largest.write_bytes(data)
    return largest.name


def main() -> None:
    """Play the isolated half."""
    media, sheet, root = (Path(a) for a in sys.argv[1:4])
    port = int(sys.argv[4])
    raise_loopback()
    show_isolation()
    kit = media / "kit"
    bundle = next(p for p in media.iterdir() if (p / "trust").is_dir())
    airgap = (sys.executable, "-I", "-S", str(kit / "airgap.pyz"), "--root", str(root))
    os.chdir(kit)
    run("sha256sum", "-c", str(sheet))
    fingerprint = next(s.split()[0] for s in _lines(str(sheet)) if s.endswith("root.json"))
    run(*airgap, "trust", "add", "root.json", "--sha256", fingerprint)
    for policy in sys.argv[5:]:
        run(*airgap, "policy", "install", policy)
    run(*airgap, "verify", str(bundle))
    run(*airgap, "install", str(bundle))
    try:
        say(f"\n$ curl http://127.0.0.1:{port}/v1/chat/completions   # {_QUESTION}")
        started = time.monotonic()
        say(f"answer    {ask(port)!r}  ({time.monotonic() - started:.1f} s)")
        run(*airgap, "receipt")
        run(*airgap, "status")
        spoiled = media.parent / "spoiled"
        say("\nAnd if one bit of the medium flips on the way?")
        say(f"          one bit of {spoil_a_copy(bundle, spoiled)[:16]}... was flipped in a copy")
        run(*airgap, "verify", str(spoiled), expect=3)
        run(*airgap, "status")
    finally:
        run(*airgap, "stop")


if __name__ == "__main__":
    main()
