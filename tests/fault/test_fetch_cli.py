"""`sealift fetch` as people run it: what it asks for, how fast, how it ends."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner

from airgap.format.artifacts import LockedArtifact, LockedFile, LockedModel, LockedPlainFiles
from airgap.format.lock import Lock
from bundler.cli import cli
from bundler.fetch import partial
from bundler.fetch.budget import Throttle
from bundler.fetch.job import MAX_TRIES
from bundler.request import read
from bundler.workspace import Workspace
from tests.fault.web import Fault, File, Request, Web, claim, cut, flip, serving, status

MB = 1_000_000
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
DATA = random.Random(1).randbytes(6 * MB)
HEAD = """\
name = "lab"
version = "1"
summary = "A test"

[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "cpu"
"""


class Lab:
    """One home with one locked request."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "home")
        self.request = folder / "lab.toml"
        self.environment = {
            **{k: v for k, v in os.environ.items() if "proxy" not in k.lower()},
            "NETRC": str(folder / "no-netrc"),
            "HF_HOME": str(folder / "hf"),
        }

    def lock(self, request: str, *artifacts: LockedArtifact) -> None:
        """As `sealift lock` would have, without asking the source."""
        self.request.write_text(HEAD + request)
        asked = read(self.request)
        made = Lock(
            request=hashlib.sha256(asked.to_bytes()).hexdigest(),
            name=asked.name,
            version=asked.version,
            summary=asked.summary,
            release=1,
            created=1_790_000_000,
            not_after=1_800_000_000,
            audience=(),
            handling="",
            target=asked.target,
            artifacts=artifacts,
        )
        place = self.workspace.build("lab", "1").lock
        place.parent.mkdir(parents=True)
        place.write_bytes(made.to_bytes())

    def lock_file(self, url: str, data: bytes = DATA) -> str:
        """One plain file at `url`; its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        path = PurePosixPath("f")
        file = LockedFile(path=path, sha256=sha256, size=len(data), label="127.0.0.1", url=url)
        text = f'[[file]]\nurl = "{url}"\nsha256 = "{sha256}"\n'
        self.lock(text, LockedPlainFiles(name="files", files=(file,)))
        return sha256

    def start(self, *argv: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "bundler", "--home", str(self.workspace.home), *argv]
        return subprocess.Popen(line, env=self.environment, stderr=subprocess.PIPE, text=True)

    def fetch(self, *options: str) -> tuple[int, str]:
        """Exit code and stderr."""
        child = self.start("fetch", str(self.request), *options)
        _, said = child.communicate(timeout=60)
        return child.returncode, said


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as running:
        yield running


def test_a_limited_rate_is_what_the_clock_says() -> None:
    """Counted on a clock that only our own pauses move."""
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    throttle, rng, total = Throttle(5 * MB, sleep, lambda: now), random.Random(4), 0
    for _ in range(2000):
        count = rng.randrange(1, 600_000)
        throttle.take(count)
        total += count
        assert total <= 5 * MB * (now - 100.0) + 1
    assert total / (now - 100.0) == pytest.approx(5 * MB, rel=0.001)


def test_the_command_line_limits_rate_and_connections(lab: Lab, web: Web) -> None:
    """At no moment more had left than the rate allows and the sockets' buffers hold: a machine that
    is busy makes that less, never more."""
    sha256 = lab.lock_file(web.url("/f"))
    began: list[float] = []
    most = 0.0

    def watched(r: Request) -> bool:
        began.append(time.monotonic())
        return False

    web.files["/f"] = File(DATA, every=watched)
    child = lab.start("fetch", str(lab.request), "--limit-rate", "3M", "--connections", "2")
    while child.poll() is None:
        sent, now = web.sent, time.monotonic()
        if began:
            most = max(most, sent - 3 * MB * (now - began[0]))
        time.sleep(0.01)
    assert child.wait() == 0
    assert lab.workspace.store.blob_path(sha256).read_bytes() == DATA
    assert web.sent == len(DATA)
    # What was not used is saved up for a quarter of a second at most.
    assert time.monotonic() - began[0] > len(DATA) / (3 * MB) - 0.3
    assert web.at_once <= 2
    print(f"at most {most / MB:.2f} MB more than 3 MB/s had left")


@pytest.mark.parametrize("rate", ["fast", "12", "-1M", "1T", "0.5K"])
def test_what_is_no_rate_is_a_usage_error(rate: str) -> None:
    result = CliRunner().invoke(cli, ["fetch", "lab.toml", "--limit-rate", rate])
    assert result.exit_code == 2
    assert repr(rate) in result.output


def test_ten_thousand_files_that_are_there_touch_no_network(lab: Lab) -> None:
    blobs = lab.workspace.store.blobs
    blobs.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        files = []
        for number in range(10_000):
            data = b"%d" % number
            sha256 = hashlib.sha256(data).hexdigest()
            (blobs / sha256).write_bytes(data)
            path = PurePosixPath(f"{number:05}.json")
            url = f"{origin}/org/many/resolve/{'0' * 40}/{path}"
            files.append(LockedFile(path=path, sha256=sha256, size=len(data), label="hub", url=url))
        model = LockedModel(
            name="model",
            source="127.0.0.1/org/many",
            revision="0" * 40,
            format="safetensors",
            publisher="org",
            licence="mit",
            files=tuple(files),
        )
        lab.lock('[[model]]\nrepo = "org/many"\n', model)
        for name in ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            lab.environment[name] = origin
        started = time.monotonic()
        code, said = lab.fetch()
        print(f"nothing to fetch of 10,000 files: {time.monotonic() - started:.2f} s")
        assert (code, said) == (0, "")
        assert select.select([listener], [], [], 0)[0] == []


def new_each_time() -> Fault:
    """Another file at each request, and less of it than is asked for."""
    numbers = itertools.count()

    def fault(r: Request) -> None:
        r.file.etag = f'"{next(numbers)}"'
        cut(MB)(Request(r.handler, r.file, r.web))

    return fault


ENDINGS: dict[str, tuple[Fault, str, int]] = {
    "not found": (status(404), "source.http", 6),
    "wait a day": (status(429, Retry_After="86400"), "source.unreachable", 6),
    "redirect loop": (status(302, Location="/f"), "source.redirect", 6),
    "packed on the way": (claim(Content_Encoding="gzip"), "source.encoding", 6),
    "another file each time": (new_each_time(), "source.changed", 6),
    "flipped bit": (flip(4000), "source.digest", 3),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_fault_ends_with_its_exit_code(lab: Lab, web: Web, name: str) -> None:
    fault, id, code = ENDINGS[name]
    sha256 = lab.lock_file(web.url("/f"))
    web.files["/f"] = File(DATA, every=fault)
    ended, said = lab.fetch()
    assert ended == code
    assert f"error {id}: " in said
    assert said.endswith(f"exit {code}\n")
    assert not lab.workspace.store.blob_path(sha256).exists()


def test_nobody_at_that_address_ends_with_6(lab: Lab) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sha256 = lab.lock_file(f"http://127.0.0.1:{port}/f")
    code, said = lab.fetch()
    assert (code, "error source.unreachable: " in said) == (6, True)
    assert "Connection refused" in said
    assert said.count("warning source.retry: ") == MAX_TRIES - 1
    assert not lab.workspace.store.blob_path(sha256).exists()


def test_other_bytes_of_another_length_end_with_3(lab: Lab, web: Web) -> None:
    lab.lock_file(web.url("/f"))
    web.files["/f"] = File(DATA + b"more")
    code, said = lab.fetch()
    assert (code, "error source.size: " in said) == (3, True)


@contextlib.contextmanager
def small_disk(store: Path, size: str) -> Iterator[None]:
    """A file system of its own under the store."""
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(store)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(store)], check=True)


@needs_root
def test_a_disk_without_room_ends_with_8_before_the_first_byte(lab: Lab, web: Web) -> None:
    lab.lock_file(web.url("/f"))
    web.files["/f"] = File(DATA)
    with small_disk(lab.workspace.store.root, "8m"):
        code, said = lab.fetch()
    assert (code, "error disk.full: " in said) == (8, True)
    assert web.asked == []


@needs_root
def test_a_disk_that_somebody_else_fills_ends_with_8_and_goes_on_later(lab: Lab, web: Web) -> None:
    """There is room when it begins; while the bytes come, another program takes it."""
    sha256 = lab.lock_file(web.url("/f"))
    store = lab.workspace.store
    filler = store.root / "of-somebody-else"

    def fills(r: Request) -> bool:
        if web.sent > 2 * MB and not filler.exists():
            with contextlib.suppress(OSError), filler.open("wb") as f:
                while True:
                    f.write(bytes(MB))
        return False

    web.files["/f"] = File(DATA, every=fills)
    with small_disk(store.root, "80m"):
        code, said = lab.fetch("--connections", "1")
        assert (code, "error disk.full: " in said) == (8, True)
        assert said.endswith("exit 8\n")
        assert not store.blob_path(sha256).exists()
        web.files["/f"].every, before = None, web.sent
        filler.unlink()
        assert lab.fetch() == (0, "")
        assert store.blob_path(sha256).read_bytes() == DATA
        assert 0 < web.sent - before <= len(DATA) - 2 * MB


def test_ctrl_c_says_that_it_goes_on_and_ends_with_130(lab: Lab, web: Web) -> None:
    sha256 = lab.lock_file(web.url("/f"))
    web.files["/f"] = File(DATA, rate=MB)
    child = lab.start("fetch", str(lab.request))
    while child.poll() is None and web.sent < 3 * MB:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 130
    assert "warning fetch.interrupted: what came so far is kept" in said
    assert "run the same command again to go on" in said
    assert "Traceback" not in said
    journal = (lab.workspace.store.root / "partial" / f"{sha256}.journal").read_bytes()
    kept = sum(b - a for a, b in partial.parse(journal, partial._boot())[1])
    assert kept > MB
    while web.busy:  # the server notices at its next write that nobody listens
        time.sleep(0.01)
    web.files["/f"].rate, before = 0.0, web.sent
    assert lab.fetch()[0] == 0
    assert web.sent - before <= len(DATA) - kept
    assert lab.workspace.store.blob_path(sha256).read_bytes() == DATA
