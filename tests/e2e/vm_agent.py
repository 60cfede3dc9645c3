"""Runs inside the machine of vm.py, alone: takes shell scripts from the virtio port, one a line,
and answers with what they came to. Says first that it is up, and which boot this is."""

from __future__ import annotations

import json
import os
import subprocess
import time

PORT = "/dev/virtio-ports/sealift"


def main() -> None:
    while not os.path.exists(PORT):
        time.sleep(0.1)  # udev makes the name
    fd = os.open(PORT, os.O_RDWR)
    with open("/proc/sys/kernel/random/boot_id") as f:
        _say(fd, {"id": 0, "boot": f.read().strip()})
    rest = b""
    while data := os.read(fd, 65536):
        *lines, rest = (rest + data).split(b"\n")
        for line in filter(None, lines):
            _say(fd, _done(json.loads(line)))


def _done(asked: dict[str, object]) -> dict[str, object]:
    argv = ["/bin/sh", "-c", str(asked["script"])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, cwd="/")
    out, err = (b.decode("utf-8", "replace") for b in (done.stdout, done.stderr))
    return {"id": asked["id"], "code": done.returncode, "out": out, "err": err}


def _say(fd: int, what: dict[str, object]) -> None:
    data = b"\n" + json.dumps(what).encode() + b"\n"
    while data:
        data = data[os.write(fd, data) :]


if __name__ == "__main__":
    main()
