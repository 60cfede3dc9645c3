"""A lock is held exactly as long as its process lives; a log is bounded and harmless to show."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import airgap
from airgap.errors import IntegrityError
from airgap.host import locks, logs, own_copy, processes
from airgap.host.paths import HostPaths

_HOLD = """
import sys, time
from pathlib import Path
from airgap.errors import SealiftError
from airgap.host import locks
try:
    locks.hold(Path(sys.argv[1]), "this test")
except SealiftError as e:
    sys.exit(e.id)
print("held", flush=True)
time.sleep(60)
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", _HOLD, str(path)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_holder_is_the_living_process_and_nobody_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    assert locks.holder(path) is None
    with hold(path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert locks.holder(path) == process.pid
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert locks.holder(path) is None


def test_second_holder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with hold(path) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with hold(path) as second:
            assert second.wait() == 1
            assert second.stderr is not None
            assert b"host.already-running" in second.stderr.read()
        assert locks.holder(path) == first.pid
        first.kill()


def test_stale_lock_file_names_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text(str(os.getpid()))
    assert locks.holder(path) is None


def test_start_time_tells_a_process_from_a_later_one_of_its_id() -> None:
    assert processes.start_ticks(os.getpid()) == processes.start_ticks(os.getpid())
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
    assert processes.start_ticks(process.pid) is None


def test_log_turns_over_and_keeps_two(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    log = logs.RotatingLog(path, max_bytes=100)
    for n in range(30):
        log.write(f"line {n:04}\n".encode())
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["engine.log", "engine.log.1"]
    assert path.stat().st_size <= 100 and (tmp_path / "engine.log.1").stat().st_size <= 100
    assert logs.tail(path, 1) == "line 0029"


def test_log_is_continued_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    for text in (b"one\n", b"two\n"):
        log = logs.RotatingLog(path)
        log.write(text)
        log.close()
    assert path.read_bytes() == b"one\ntwo\n"


def test_terminal_escapes_in_a_log_are_shown_harmlessly(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_bytes(b"\x1b]0;owned\x07 \xff ok\n")
    shown = logs.tail(path)
    assert "\x1b" not in shown and "\x07" not in shown and shown.endswith("ok")


def test_program_runs_itself_again_from_a_copy_of_its_zip(tmp_path: Path) -> None:
    zipped = tmp_path / "airgap.pyz"
    package = Path(airgap.__file__).parent
    with zipfile.ZipFile(zipped, "w") as archive:
        for file in package.rglob("*.py"):
            archive.write(file, str(Path("airgap") / file.relative_to(package)))
        archive.writestr(
            "__main__.py",
            "import sys\nfrom pathlib import Path\nfrom airgap.host import paths, processes\n"
            "print(*processes.entry_point(paths.HostPaths(Path(sys.argv[1]))))\n",
        )
    own = tmp_path / "root" / "bin" / "airgap.pyz"
    for flags in (["-I"], ["-I", "-S"]):
        argv = [sys.executable, *flags, zipped.name, "root"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout.split() == [sys.executable, *flags, str(own)]
    first = own.read_bytes()
    again = subprocess.run([sys.executable, "-I", own, "root"], cwd=tmp_path, capture_output=True)
    assert again.stdout.split()[-1] == bytes(own)
    own.write_bytes(first[:-1])
    assert own_copy.keep(zipped, own).read_bytes() == first, "a damaged copy is made again"


def test_own_copy_has_every_source_with_its_bytecode_and_nothing_else(tmp_path: Path) -> None:
    source = b"import sys\nprint(sys._getframe().f_code.co_filename, __file__)\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("__main__.py", source)
        made.writestr("other/data.txt", b"data")
    copy = tmp_path / "copy.pyz"
    copy.write_bytes(own_copy.compiled(archive.getvalue()))
    assert copy.read_bytes() == own_copy.compiled(archive.getvalue())
    assert copy.read_bytes() == own_copy.compiled(copy.read_bytes()), "of a copy, the same again"
    with zipfile.ZipFile(copy) as found:
        assert sorted(found.namelist()) == ["__main__.py", "__main__.pyc", "other/data.txt"]
        assert found.read("__main__.py") == source
    ran = subprocess.run([sys.executable, "-I", "-S", copy], capture_output=True, check=True)
    assert ran.stdout.split()[0] == b"__main__.py", "bytecode has the name it was compiled under"


def test_program_runs_itself_again_from_its_package(tmp_path: Path) -> None:
    assert processes.entry_point(HostPaths(tmp_path)) == (sys.executable, "-I", "-m", "airgap")


@pytest.mark.parametrize("loud", ["no such file", "cannot bind"])
def test_daemon_that_ends_at_once_is_an_error_with_its_own_words(tmp_path: Path, loud: str) -> None:
    log = tmp_path / "d.log"
    log.write_text(loud)
    pid = os.posix_spawn("/bin/false", ["false"], {})
    with pytest.raises(Exception, match=r"serving\.daemon") as e:
        processes.wait_until(lambda: False, pid, log, "the daemon")
    assert loud in e.value.why  # type: ignore[attr-defined]


def test_daemon_ahead_does_nothing_until_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "front.log"
    waiting = processes.Ahead(HostPaths(tmp_path), log, "front", "tiny")
    told = processes.Ahead(HostPaths(tmp_path), log.with_name("told.log"), "front", "tiny")
    _, status = os.waitpid(told.go(), 0)
    told.close()
    assert os.waitstatus_to_exitcode(status) == 7
    assert "host.not-staged" in log.with_name("told.log").read_text()
    pid = waiting._pid
    assert pid is not None
    waiting.close()
    assert log.read_text() == ""
    with pytest.raises(ChildProcessError):  # it was ended, and waited for
        os.waitpid(pid, os.WNOHANG)


def test_daemon_ahead_ends_with_the_command_that_started_it(tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-m", "airgap", "--root", str(tmp_path), "front", "tiny"]
    done = subprocess.run([*argv, "--ahead"], stdin=subprocess.DEVNULL, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


# Whoever may open a lock's file for reading can lock it so (fcntl(2), F_OFD_SETLK).
_STAND_IN_THE_WAY = """
import fcntl, struct, sys, time
f = open(sys.argv[1], "rb")
fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0))
print("held", flush=True)
time.sleep(60)
"""


def test_lock_of_another_kind_makes_nobody_signal_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel names -1 as its holder, and kill(-1) reaches every process of the host."""
    path = tmp_path / "lock"
    path.touch()
    signalled: list[int] = []
    argv = [sys.executable, "-c", _STAND_IN_THE_WAY, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with monkeypatch.context() as m:
            m.setattr(os, "kill", lambda pid, _number: signalled.append(pid))
            for ask in (locks.holder, lambda p: processes.terminate(p, 0.1)):
                with pytest.raises(IntegrityError) as e:
                    ask(path)
                assert (e.value.id, e.value.exit_code) == ("host.lock-foreign", 3)
            with pytest.raises(AssertionError):
                processes._signal(-1, signal.SIGTERM)
        child.kill()
    assert signalled == []
    assert locks.holder(path) is None


def test_lock_is_open_to_its_owner_and_group_alone(tmp_path: Path) -> None:
    """Whatever the umask is: the front reads it as one of the group, others would be in its way."""
    path = tmp_path / "lock"
    with hold(path) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        assert path.stat().st_mode & 0o777 == 0o640
        child.kill()
