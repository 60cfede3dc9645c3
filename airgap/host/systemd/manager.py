"""Talks to systemd by systemctl. Units lie in /etc/systemd/system; only ours are touched."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from airgap import environment, fsio, limits
from airgap.errors import HostError

FOLDER = Path("/etc/systemd/system")
# A stop waits for the engine's own time and for its kill.
_SECONDS = limits.ENGINE_STOP_SECONDS + 60


def is_running() -> bool:
    """Whether systemd is this host's init (sd_booted(3)) and can be asked."""
    return Path("/run/systemd/system").is_dir() and _tool("systemctl") is not None


def must_run() -> None:
    """Raise HostError `host.no-systemd` unless it is, and we may command it."""
    if is_running() and os.geteuid() == 0:
        return
    raise HostError(
        "host.no-systemd",
        "systemd cannot keep the daemons running here",
        why="it is not this host's init" if not is_running() else "only root may command it",
        do="run this as root on a host with systemd, or use --supervisor own",
    )


def make_user(name: str) -> None:
    """A system user without a home, a shell or a password."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        line = f'u {name} - "Serves approved models" - -'
        fsio.write(Path(f"/etc/sysusers.d/{name}.conf"), f"{line}\n".encode())
        _must("systemd-sysusers", f"{name}.conf")


def must_pass(user: str, root: Path) -> None:
    """Raise HostError `host.root-closed` where `user` cannot pass through the folders to `root`:
    systemd would say no more than that a start failed. The kernel is asked, for there are ACLs."""
    who = pwd.getpwnam(user)
    groups = os.getgrouplist(user, who.pw_gid)
    for folder in (*reversed(root.parents), root):
        if not folder.is_dir():
            return
        asked = [_tool("test") or "test", "-x", str(folder)]
        done = subprocess.run(
            asked, user=who.pw_uid, group=who.pw_gid, extra_groups=groups, cwd="/", check=False
        )
        if done.returncode != 0:
            raise HostError(
                "host.root-closed",
                f"the service user {user} cannot pass through {folder}",
                why=f"its mode is {folder.stat().st_mode & 0o7777:04o} and it belongs to another",
                do=f"run `chmod o+x {folder}`, which lets others pass through and not list it, or "
                "use a root elsewhere",
            )


def put(name: str, text: str) -> bool:
    """Have that unit as it is written; whether it had to be changed."""
    path = FOLDER / name
    try:
        if path.read_text("utf-8") == text:
            return False
    except FileNotFoundError:
        pass
    fsio.write(path, text.encode())
    _must("systemctl", "daemon-reload")
    return True


def remove(name: str) -> None:
    """Stop, disable and remove a unit; nothing when there is none."""
    if not (FOLDER / name).exists():
        return
    _must("systemctl", "disable", "--now", name)
    with fsio.disk_errors(f"removing the unit {name}"):
        (FOLDER / name).unlink(missing_ok=True)
        fsio.fsync_dir(FOLDER)
    _must("systemctl", "daemon-reload")
    _ask("systemctl", "reset-failed", name)  # fails when it had not failed, which is as good


def start(name: str) -> None:
    """Start a unit, whatever became of it before."""
    _ask("systemctl", "reset-failed", name)
    _must("systemctl", "start", name)


def stop(name: str) -> bool:
    """Stop a unit; False when it was not active."""
    if _ask("systemctl", "is-active", "--quiet", name).returncode != 0:
        _ask("systemctl", "stop", name)  # between two starts it is not active and would come back
        return False
    _must("systemctl", "stop", name)
    return True


def shut_in(user: str, properties: Iterable[str]) -> tuple[str, ...]:
    """The words before a command that have systemd run it as `user`, as a unit of those properties
    would, and that end with it; what it starts ends as well."""
    words = [_tool("systemd-run") or "systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
    for each in (f"User={user}", "KillMode=control-group", *properties):
        words += ["--property", each]
    return (*words, "--")


def enable(name: str) -> None:
    """Start it with the host from now on."""
    if _ask("systemctl", "is-enabled", "--quiet", name).returncode != 0:
        _must("systemctl", "enable", name)


def verify(folder: Path, names: list[str]) -> None:
    """Raise HostError `host.systemd` with systemd's own words when a rendered unit is not right."""
    files = [str(folder / n) for n in names]
    done = _ask("systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", *files)
    if done.returncode != 0:
        raise _failed("systemd-analyze verify", done)


def exposure(path: Path) -> str:
    """The line that `systemd-analyze security` ends with, for a unit's file."""
    done = _ask("systemd-analyze", "security", "--offline=true", "--no-pager", str(path))
    lines = [x.strip("\u2192 ") for x in done.stdout.splitlines() if "exposure level" in x]
    return lines[-1] if lines else (done.stderr.strip()[-200:] or "not known")


def _tool(name: str) -> str | None:
    return shutil.which(name, path=environment.SYSTEM_PATH)


def _ask(tool: str, *words: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [_tool(tool) or tool, *words],
            env={"PATH": environment.SYSTEM_PATH, "LANG": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise HostError(
            "host.systemd",
            f"{tool} did not answer",
            why=str(e),
            do="look at `systemctl status`, then run the same command again",
        ) from e


def _must(tool: str, *words: str) -> None:
    done = _ask(tool, *words)
    if done.returncode != 0:
        raise _failed(" ".join((tool, *words)), done)


def _failed(what: str, done: subprocess.CompletedProcess[str]) -> HostError:
    return HostError(
        "host.systemd",
        f"`{what}` failed",
        why=(done.stderr or done.stdout).strip()[-1000:] or f"exit status {done.returncode}",
        do="correct what systemd names (`journalctl -xe` says more), then run this again",
    )
