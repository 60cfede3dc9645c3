"""A real llama.cpp server on a real model: start, switch, fail, crash, roll back, stop."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from airgap import fsio
from airgap.errors import HostError, PolicyError, ServingError
from airgap.events import Warn
from airgap.format.manifest import Manifest
from airgap.host import (
    activate,
    endpoint,
    front,
    ledger,
    locks,
    loopback,
    probation,
    probe,
    services,
    smoke,
)
from airgap.host.endpoint import Endpoint
from airgap.host.foreground import run_foreground
from airgap.host.preflight import NotFit, preflight
from airgap.host.status import Status, status
from tests.e2e.hostlab import IMPOSSIBLE, SUM, HostLab, free_port, wait_for

pytestmark = pytest.mark.e2e


def fine(_manifest: Manifest, _digest: str) -> None:
    """A judge that lets everything serve."""


def answer(port: int, prompt: str = SUM.prompt) -> str:
    body = {"messages": [{"role": "user", "content": prompt}], "temperature": 0, "max_tokens": 16}
    path = "/v1/chat/completions"
    found = loopback.request(port, path, body=json.dumps(body).encode(), seconds=60)
    return str(loopback.decode(path, found)["choices"][0]["message"]["content"])


def is_healthy(port: int) -> bool:
    try:
        return loopback.request(port, "/health", seconds=5).status == 200
    except loopback.NoAnswer:
        return False


def where(host: HostLab, version: str) -> Endpoint:
    found = endpoint.live(host.paths.deployment("smol", version))
    assert found is not None
    return found


def state_of(host: HostLab, version: str) -> Status:
    return next(s for s in status(host.paths) if s.version == version)


def switches(host: HostLab) -> list[tuple[str, str]]:
    chain = ledger.read(host.paths.ledger)
    return [(e.event, e.data.get("version", "")) for e in chain.entries]


def assert_only_serves(host: HostLab, version: str) -> None:
    """That version answers on the public port, is current, and nothing else runs."""
    assert host.current() == version
    assert "4" in answer(host.port)
    assert state_of(host, version).state == "serving"
    for other in status(host.paths):
        assert other.version == version or other.pids == ()


def test_new_version_takes_over_on_the_same_port(host: HostLab) -> None:
    first = host.install(host.manifest("1"))
    assert first.smoke.answers and "4" in first.smoke.answers[0]
    assert (first.previous, first.address) == (None, f"http://127.0.0.1:{host.port}/v1")
    door = front.live(host.paths.front("smol"))
    second = host.install(host.manifest("2"))
    assert second.previous == "1"
    assert_only_serves(host, "2")
    assert front.live(host.paths.front("smol")) == door
    assert switches(host) == [("switch", "1"), ("switch", "2")]


def test_installing_the_same_again_changes_nothing(host: HostLab) -> None:
    host.install(host.manifest("1"))
    before = where(host, "1")
    again = host.install(host.manifest("1"))
    assert where(host, "1") == before
    assert again.previous is None
    assert switches(host) == [("switch", "1")]


def test_failed_check_leaves_the_old_one_serving(host: HostLab) -> None:
    host.install(host.manifest("1"))
    with pytest.raises(ServingError) as e:
        host.install(host.manifest("2", SUM, IMPOSSIBLE))
    assert (e.value.id, e.value.exit_code) == ("serving.check-failed", 9)
    assert "check 2" in e.value.what
    assert_only_serves(host, "1")
    assert switches(host) == [("switch", "1")]


def test_damaged_model_fails_at_once_with_the_engines_own_words(
    host: HostLab, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(4096))
    with pytest.raises(ServingError) as e:
        host.install(host.manifest("1", gguf=broken))
    assert e.value.id == "serving.engine-died"
    # llama.cpp sometimes ends before it has written its last lines; then the error says that.
    words = ("bad GGUF version", "wrote no reason")
    assert sum(w in e.value.why for w in words) == 1, e.value.why
    assert host.current() is None
    assert host.alive() == []
    assert probe.port_is_free(host.port)


def test_killed_engine_is_started_again(host: HostLab) -> None:
    host.install(host.manifest("1"))
    before = where(host, "1")
    os.kill(before.engine, signal.SIGKILL)
    wait_for(lambda: where(host, "1").state == "up" and where(host, "1").engine != before.engine)
    wait_for(lambda: is_healthy(host.port))
    assert (where(host, "1").supervisor, where(host, "1").crashes) == (before.supervisor, 1)
    assert "4" in answer(host.port)


def test_killed_supervisor_leaves_no_engine_and_start_brings_it_back(host: HostLab) -> None:
    host.install(host.manifest("1"))
    before = where(host, "1")
    os.kill(before.supervisor, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{before.engine}/exe").exists())
    assert loopback.request(host.port, "/health", seconds=5).status == 503
    assert state_of(host, "1").state == "stopped"
    with host.paths.exclusive("test"):
        activate.start(host.paths, "smol", fine)
    assert_only_serves(host, "1")


def test_killed_front_is_started_again_by_start(host: HostLab) -> None:
    host.install(host.manifest("1"))
    door = front.live(host.paths.front("smol"))
    assert door is not None
    os.kill(door.pid, signal.SIGKILL)
    wait_for(lambda: state_of(host, "1").state == "unreachable")
    with host.paths.exclusive("test"):
        activate.start(host.paths, "smol", fine)
    assert_only_serves(host, "1")


def die_after(call: Callable[..., object]) -> Callable[..., object]:
    def dying(*args: object, **kwargs: object) -> object:
        call(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        return None

    return dying


KILLS = {
    "engine started": (services, "start_engine"),
    "smoke test passed": (smoke, "smoke"),
    "probation begun": (probation, "begin"),
    "link switched": (fsio, "symlink"),
    "front brought": (services, "start_front"),
    "front checked": (smoke, "check_models"),
    "ledger written": (ledger, "append"),
    "old one stopped": (services, "stop_engine"),
}


@pytest.mark.parametrize("step", KILLS)
def test_killed_activation_is_finished_by_the_same_call(host: HostLab, step: str) -> None:
    host.install(host.manifest("1"))
    new = host.manifest("2")
    host.stage(new)
    killed_at(step, lambda: host.install(new))
    assert "4" in answer(host.port)
    assert host.install(new).previous == "1"
    assert_only_serves(host, "2")
    assert switches(host) == [("switch", "1"), ("switch", "2")]


def killed_at(step: str, act: Callable[[], object]) -> None:
    module, function = KILLS[step]
    child = os.fork()
    if child == 0:
        setattr(module, function, die_after(getattr(module, function)))
        try:
            act()
        finally:
            os._exit(3)
    _, how = os.waitpid(child, 0)
    assert os.WTERMSIG(how) == signal.SIGKILL


@pytest.mark.parametrize("step", ["link switched", "ledger written"])
def test_killed_rollback_is_finished_by_the_same_call(host: HostLab, step: str) -> None:
    """It goes where the first one went, not to what was before that."""
    host.install(host.manifest("1"))
    host.install(host.manifest("2"))
    killed_at(step, lambda: activate.rollback(host.paths, "smol", fine))
    assert "4" in answer(host.port)
    for expected in ("1", "2"):
        with host.paths.exclusive("test"):
            activate.rollback(host.paths, "smol", fine)
        assert_only_serves(host, expected)
    assert switches(host)[2:] == [("rollback", "1"), ("rollback", "2")]


@contextmanager
def listener(port: int) -> Iterator[None]:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen(1)
        yield


def test_taken_port_is_refused_and_nothing_is_left(host: HostLab) -> None:
    manifest = host.manifest("1")
    with listener(host.port):
        with pytest.raises(NotFit) as refused:
            preflight(host.paths, manifest, host.events.append)
        assert [p.what for p in refused.value.problems] == ["port"]
        with pytest.raises(ServingError) as e:
            host.install(manifest)
    assert e.value.id == "serving.daemon"
    assert str(host.port) in e.value.why
    assert host.current() is None
    assert host.alive() == []


def test_taken_new_port_leaves_the_old_one_on_its_port(host: HostLab) -> None:
    host.install(host.manifest("1"))
    other = free_port()
    with listener(other), pytest.raises(ServingError):
        host.install(host.manifest("2", port=other))
    assert_only_serves(host, "1")


def test_new_version_may_move_to_another_port(host: HostLab) -> None:
    host.install(host.manifest("1"))
    old = host.port
    host.port = free_port()
    host.install(host.manifest("2"))
    assert_only_serves(host, "2")
    assert probe.port_is_free(old)


def test_rollback_serves_the_one_before_and_forth_again(host: HostLab) -> None:
    host.install(host.manifest("1"))
    host.install(host.manifest("2"))
    for expected in ("1", "2"):
        with host.paths.exclusive("test"):
            activate.rollback(host.paths, "smol", fine)
        assert_only_serves(host, expected)
    assert switches(host)[2:] == [("rollback", "1"), ("rollback", "2")]


def test_rollback_to_a_revoked_version_is_refused(host: HostLab) -> None:
    host.install(host.manifest("1"))
    host.install(host.manifest("2"))

    def revoked(manifest: Manifest, _digest: str) -> None:
        raise PolicyError("trust.revoked", manifest.version, why="revoked", do="nothing")

    with pytest.raises(PolicyError):
        activate.rollback(host.paths, "smol", revoked)
    assert_only_serves(host, "2")


def test_rollback_without_an_earlier_version_is_refused(host: HostLab) -> None:
    host.install(host.manifest("1"))
    with pytest.raises(HostError) as e:
        activate.rollback(host.paths, "smol", fine)
    assert e.value.id == "host.no-rollback"
    assert_only_serves(host, "1")


def test_stop_leaves_no_process_and_no_socket_and_start_serves_again(host: HostLab) -> None:
    host.install(host.manifest("1"))
    private = where(host, "1").port
    assert activate.stop(host.paths, "smol")
    assert host.alive() == []
    assert probe.port_is_free(host.port)
    assert probe.port_is_free(private)
    assert state_of(host, "1").state == "stopped"
    assert not activate.stop(host.paths, "smol")
    activate.start(host.paths, "smol", fine)
    assert_only_serves(host, "1")


def stream(port: int, got: list[bytes]) -> threading.Thread:
    """Ask for a long answer; returns when its first line came, the thread reads the others."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    question = {"role": "user", "content": "Write a very long story about the sea."}
    body = {"messages": [question], "stream": True, "max_tokens": 150, "temperature": 0}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    got.append(response.readline())

    def read() -> None:
        got.extend(response.readlines())
        connection.close()

    thread = threading.Thread(target=read)
    thread.start()
    return thread


@pytest.mark.parametrize("patience", [300, 0], ids=["patient", "impatient"])
def test_answer_under_way_is_finished_during_a_switch_as_long_as_is_waited(
    host: HostLab, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    host.install(host.manifest("1"))
    new = host.manifest("2", SUM)
    host.stage(new)
    drain = services.drain
    monkeypatch.setattr(services, "drain", lambda place: drain(place, patience))
    if not patience:
        # The old one is not to be done before the switch, however slow this machine is.
        wait = smoke.Smoke((), ())
        monkeypatch.setattr(smoke, "smoke", lambda d, s: smoke.wait_healthy(d, s) and wait)
    got: list[bytes] = []
    reader = stream(host.port, got)
    host.install(new)
    reader.join()
    broke = [e for e in host.events if isinstance(e, Warn) and e.id == "serving.drain"]
    assert (b"data: [DONE]\n" in got) == (not broke)
    assert bool(broke) <= (not patience)
    assert_only_serves(host, "2")


def test_prompts_and_answers_are_in_no_file(host: HostLab) -> None:
    host.install(host.manifest("1"))
    answer(host.port, "The secret word is zanzibarquartz. Repeat it.")
    for path in host.root.rglob("*"):
        inside_payload = {"venv", "model", "wheels", "store"} & set(path.parts)
        if path.is_file() and not path.is_symlink() and not inside_payload:
            assert b"zanzibarquartz" not in path.read_bytes(), path


FOREGROUND = """
import sys
from pathlib import Path
from airgap.host.foreground import run_foreground
from airgap.host.paths import HostPaths
sys.exit(run_foreground(HostPaths(Path(sys.argv[1])), "smol", lambda m, d: None))
"""


def test_foreground_serves_until_sigterm_and_takes_all_along(host: HostLab) -> None:
    host.install(host.manifest("1"))
    with pytest.raises(HostError) as e:
        run_foreground(host.paths, "smol", fine)
    assert e.value.id == "host.already-running"
    assert_only_serves(host, "1")
    activate.stop(host.paths, "smol")
    argv = [sys.executable, "-I", "-c", FOREGROUND, str(host.root)]
    with subprocess.Popen(argv) as process:
        wait_for(lambda: is_healthy(host.port))
        wait_for(lambda: state_of(host, "1").state == "serving")
        wait_for(lambda: locks.holder(host.paths.lock) is None)  # it has started to the end
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert host.alive() == []
    assert probe.port_is_free(host.port)


def test_pip_alone_is_enough(host: HostLab, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.e2e import hostlab

    monkeypatch.setattr(hostlab, "UV", None)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    host.install(host.manifest("1"))
    assert host.stage(host.manifest("1")).record.installer == "pip"
    assert_only_serves(host, "1")
