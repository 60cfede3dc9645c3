"""The life of a service through the real commands, on one host without a network, in this order:
status, audit, support, what `verify --installed` finds, probation, gc, uninstall."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.host import endpoint
from airgap.host.paths import HostPaths
from tests.e2e.hostlab import wait_for
from tests.e2e.world import QUESTION, Connected, Isolated, serving, snapshot

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def host(
    connected: Connected, v1: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Isolated]:
    """A host on which 1.0 serves; the tests below take it further, in their order."""
    yield from serving(connected, v1, tmp_path_factory)


@pytest.fixture(scope="module")
def v2(connected: Connected) -> Path:
    return connected.bundle("2.0")


def status_of(host: Isolated, version: str) -> dict[str, object]:
    lines = [json.loads(s) for s in host.airgap("status").out.splitlines()]
    return next(s for s in lines if s.get("version") == version)


def engine_of(host: Isolated, version: str) -> endpoint.Endpoint | None:
    return endpoint.live(HostPaths(host.root).deployment("smollm2", version))


def files_with(root: Path, needle: bytes) -> list[str]:
    """Every file below `root` that holds those bytes."""
    found = []
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink() and needle in path.read_bytes():
            found.append(str(path.relative_to(root)))
    return found


def test_status_says_who_approved_and_since_when(host: Isolated) -> None:
    one = status_of(host, "1.0")
    assert (one["approved_by"], one["approval"]) == ("alice, bob", "approved")
    assert isinstance(one["served_since"], int) and time.time() - one["served_since"] < 600
    assert one["probation_until"] is None


def test_nothing_was_changed_on_a_fresh_host(host: Isolated) -> None:
    before = snapshot(host.root)
    host.airgap("verify", "--installed")
    assert snapshot(host.root) == before


def model_of(host: Isolated) -> Path:
    return next((host.root / "deployments/smollm2/1.0/model").iterdir())


def site_of(host: Isolated) -> Path:
    return next((host.root / "deployments/smollm2/1.0/venv/lib").glob("python3*/site-packages"))


def some_blob(host: Isolated) -> Path:
    """The smallest blob: a piece of evidence."""
    return min((host.root / "store/blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)


def record_of(host: Isolated) -> Path:
    return next(site_of(host).glob("*.dist-info/RECORD"))


CHANGES = {
    "blob": some_blob,
    "manifest": lambda h: h.root / "deployments/smollm2/1.0/manifest.json",
    "python file": lambda h: next(site_of(h).glob("*/__init__.py")),
    "bytecode": lambda h: next(site_of(h).rglob("*.pyc")),
    "record of a wheel": record_of,
    "list of checksums": lambda h: h.root / "deployments/smollm2/1.0/venv.sums",
    "interpreter's settings": lambda h: h.root / "deployments/smollm2/1.0/venv/pyvenv.cfg",
    "ledger": lambda h: h.root / "ledger.jsonl",
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_file_is_found(host: Isolated, what: str, tmp_path: Path) -> None:
    path = CHANGES[what](host)
    kept = Path(shutil.copy2(path, tmp_path / "kept"))
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    try:
        error = host.airgap("verify", "--installed", expect=3).error
        assert error["id"] == "installed.changed"
        assert "1.0" in error["why"] or "store" in error["why"] or "ledger" in error["why"]
    finally:
        path.write_bytes(kept.read_bytes())
        shutil.copystat(kept, path)


def test_changed_wheel_record_and_file_together_are_found(host: Isolated) -> None:
    """Whoever changes a module and its installed RECORD still cannot change the approved wheel."""
    module = next(site_of(host).glob("*/__init__.py"))
    sums = host.root / "deployments/smollm2/1.0/venv.sums"
    kept = {p: p.read_bytes() for p in (module, sums)}
    module.write_bytes(b"import os\n")
    old, new = (hashlib.sha256(b).hexdigest().encode() for b in (kept[module], b"import os\n"))
    sums.chmod(0o644)
    sums.write_bytes(kept[sums].replace(old, new))
    try:
        why = host.airgap("verify", "--installed", expect=3).error["why"]
        assert str(module.relative_to(host.root)) in why
    finally:
        for path, data in kept.items():
            path.write_bytes(data)


def test_changed_bytecode_with_its_list_and_record_is_found(host: Isolated) -> None:
    """No wheel vouches for bytecode; the ledger says which list it was when it began to serve."""
    place = host.root / "deployments/smollm2/1.0"
    module, sums = next(site_of(host).rglob("*.pyc")), place / "venv.sums"
    record = place / "deployment.json"
    kept = {p: p.read_bytes() for p in (module, sums, record)}
    module.write_bytes(kept[module] + b"\0")
    old, new = (hashlib.sha256(p).hexdigest() for p in (kept[module], kept[module] + b"\0"))
    listed = kept[sums].replace(old.encode(), new.encode())
    before, after = (hashlib.sha256(b).hexdigest().encode() for b in (kept[sums], listed))
    for path, data in ((sums, listed), (record, kept[record].replace(before, after))):
        assert data != kept[path]
        path.chmod(0o644)
        path.write_bytes(data)
    try:
        why = host.airgap("verify", "--installed", expect=3).error["why"]
        assert "its environment is not the one that began to serve" in why
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    host.airgap("verify", "--installed")


@pytest.mark.parametrize("where", ["site-packages", "model"])
def test_added_file_is_found(host: Isolated, where: str) -> None:
    folder = site_of(host) if where == "site-packages" else model_of(host).parent
    extra = folder / "sitecustomize.py"
    extra.write_text("import os\n")
    try:
        why = host.airgap("verify", "--installed", expect=3).error["why"]
        assert f"{extra.relative_to(host.root)} was added" in why
    finally:
        extra.unlink()


def test_removed_link_in_a_model_is_found(host: Isolated, tmp_path: Path) -> None:
    model = model_of(host)
    model.rename(tmp_path / "aside")
    try:
        error = host.airgap("verify", "--installed", expect=3).error
        assert model.name in error["why"]
    finally:
        (tmp_path / "aside").rename(model)
    host.airgap("verify", "--installed")


def test_audit_fits_the_receipts_and_finds_a_rewritten_ledger(
    connected: Connected, host: Isolated, tmp_path: Path
) -> None:
    carried = tmp_path / "receipt.json"
    carried.write_text(host.airgap("receipt").out)
    found = json.loads(host.airgap("audit", str(carried)).out)
    assert found["receipts"] >= 3 and found["entries"] >= 3
    ledger = host.root / "ledger.jsonl"
    kept = ledger.read_bytes()
    try:
        ledger.write_bytes(b"".join(kept.splitlines(keepends=True)[:-1]))
        error = host.airgap("audit", str(carried), expect=3).error
        assert error["id"] == "audit.rewritten"
        ledger.write_bytes(kept.replace(b"approved", b"abproved"))
        assert host.airgap("audit", expect=3).error["id"] == "ledger.broken"
    finally:
        ledger.write_bytes(kept)
    other = json.loads(carried.read_text())
    other["host"] = "host-of-somebody-else"
    stranger = tmp_path / "other.json"
    stranger.write_text(json.dumps(other, sort_keys=True, separators=(",", ":")) + "\n")
    assert host.airgap("audit", str(stranger), expect=3).error["id"] == "audit.other-host"


def test_support_dump_has_no_prompt_and_no_key(
    connected: Connected, host: Isolated, tmp_path: Path
) -> None:
    host.ask(connected.port)
    log = host.root / "deployments/smollm2/1.0/logs/engine.log"
    with open(log, "a") as f:
        f.write('POST {"messages": [{"role": "user", "content": "canary prompt"}]}\n')
        f.write("Authorization: Bearer sk-canarykey0123456789\n")
    out = tmp_path / "support.tar.gz"
    host.airgap("support", "-o", str(out))
    assert out.stat().st_mode & 0o777 == 0o600
    text = b""
    with tarfile.open(out) as tar:
        names = tar.getnames()
        for member in tar.getmembers():
            data = tar.extractfile(member)
            assert data is not None
            text += data.read()
    assert b"canary" not in text
    assert QUESTION.encode() not in text
    assert b"listening" in text or b"server" in text, "no log is in it"
    for name in ("status.json", "ledger.jsonl", "deployments/smollm2/1.0/deployment.json"):
        assert f"airgap-support/{name}" in names
    assert not [n for n in names if re.search(r"venv|wheels|model|tls|keys", n)]


def test_version_that_keeps_crashing_returns_to_the_one_before(
    connected: Connected, host: Isolated, v2: Path
) -> None:
    host.airgap("install", str(v2))
    assert status_of(host, "2.0")["probation_until"] is not None
    deadline = time.monotonic() + 120
    while engine_of(host, "2.0") is not None:
        assert time.monotonic() < deadline
        where = engine_of(host, "2.0")
        if where is not None and where.state == "up":
            with contextlib.suppress(ProcessLookupError):
                os.kill(where.engine, signal.SIGKILL)
        time.sleep(0.1)
    wait_for(lambda: host.serving() == "1.0", 60)
    assert "4" in host.ask(connected.port)["choices"][0]["message"]["content"]
    assert status_of(host, "2.0")["state"] == "stopped"
    last = json.loads((host.root / "ledger.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["data"]["version"]) == ("return", "1.0")
    assert status_of(host, "1.0")["probation_until"] is None


def test_gc_keeps_one_way_back(connected: Connected, host: Isolated, v2: Path) -> None:
    host.airgap("install", str(v2))
    host.airgap("install", str(connected.bundle("3.0")))
    before = snapshot(host.root)
    planned = json.loads(host.airgap("gc", "--dry-run").out)
    assert planned["deployments"] == ["smollm2 1.0"]
    after = snapshot(host.root)
    assert before == after
    done = json.loads(host.airgap("gc").out)
    assert done == planned
    assert not (host.root / "deployments/smollm2/1.0").exists()
    host.airgap("verify", "--installed")
    assert json.loads(host.airgap("gc").out) == {"deployments": [], "blobs": 0, "size": 0}
    host.airgap("rollback")
    assert host.serving() == "2.0"


def test_uninstall_refuses_what_serves(host: Isolated) -> None:
    before = snapshot(host.root)
    error = host.airgap("uninstall", "smollm2", "2.0", expect=7).error
    assert error["id"] == "host.serving"
    assert host.airgap("uninstall", "other", expect=7).error["id"] == "host.not-staged"
    assert snapshot(host.root) == before
    assert host.serving() == "2.0"


def test_uninstall_of_another_version_leaves_what_serves(
    connected: Connected, host: Isolated
) -> None:
    host.airgap("uninstall", "smollm2", "3.0", "--purge")
    assert not (host.root / "deployments/smollm2/3.0").exists()
    assert host.serving() == "2.0"
    host.airgap("verify", "--installed")
    assert "4" in host.ask(connected.port)["choices"][0]["message"]["content"]


def test_purge_that_is_killed_anywhere_is_finished_by_the_same_command(
    connected: Connected, host: Isolated
) -> None:
    """Killed at the n-th removed name; then no byte of the model is left, and no process."""
    with open(connected.parts.gguf, "rb") as f:
        f.seek(40_000_000)
        needle = f.read(64)
    assert files_with(host.root, needle)
    words = ["uninstall", "smollm2", "--stop", "--purge"]
    # Blobs go by their path, trees by their open folders.
    for call, n in (("unlink", 1), ("unlink", 3), ("unlinkat", 1), ("unlinkat", 6)):
        inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        argv = [*inject, "-e", f"inject={call}:signal=KILL:when={n}", *host.argv(*words)]
        done = subprocess.run(
            argv, cwd=host.root.parent, capture_output=True, check=False, timeout=120
        )
        assert done.returncode == -signal.SIGKILL, (call, n, done.returncode)
    host.airgap(*words)
    assert files_with(host.root, needle) == []
    assert not list((host.root / "deployments").iterdir())
    assert not list((host.root / "store/blobs/sha256").iterdir())
    assert host.airgap("status").out.strip() == "{}"
    assert host.airgap(*words, expect=7).error["id"] == "host.not-staged"
    events = [json.loads(s)["event"] for s in (host.root / "ledger.jsonl").read_text().splitlines()]
    assert events[-1] == "uninstall"
    host.airgap("audit")
