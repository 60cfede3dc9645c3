"""Who keeps our daemons running: systemd where it is there, otherwise nobody but themselves.

Everything else is the same: the same commands, locks and files. A daemon is named by the words of
its hidden command, `("supervise", NAME, VERSION)` for example.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from airgap import fsio, limits
from airgap.engines.registry import serving_plan
from airgap.errors import FormatError, HostError, IntegrityError
from airgap.format.codec import Document
from airgap.format.rules import Choice
from airgap.format.types import Name
from airgap.host import processes
from airgap.host.deployment import load
from airgap.host.paths import HostPaths
from airgap.host.processes import Ahead
from airgap.host.systemd import manager, units

KINDS = ("own", "systemd")
USER = "sealift"


@dataclass(frozen=True, kw_only=True)
class Launch(Document):
    """`launch.json`. `user` runs the daemons under systemd; ours run as who started them."""

    schema: Annotated[str, Choice(("sealift.launch/1",))] = "sealift.launch/1"
    kind: Annotated[str, Choice(KINDS)] = "own"
    user: Name = USER


def read(paths: HostPaths) -> Launch:
    """What this host uses; our own where nothing was chosen. IntegrityError `launch.damaged`."""
    data = fsio.read_if_there(paths.launch, limits.MAX_LEDGER_ENTRY_BYTES)
    try:
        return Launch() if data is None else Launch.from_bytes(data)
    except FormatError as e:
        raise IntegrityError(
            "launch.damaged",
            f"{paths.launch} is not well-formed",
            why=e.why,
            do="remove it, then choose again: `airgap service install` or `airgap service remove`",
        ) from e


def choose(paths: HostPaths, kind: str | None, *, usual_root: bool) -> Launch:
    """What to use from now on: as asked for, else as before, else systemd where root runs it and
    the root folder is the usual one. The caller holds the host's lock."""
    if kind is None and paths.launch.exists():
        return read(paths)
    if kind is None:
        able = usual_root and os.geteuid() == 0 and manager.is_running()
        kind = "systemd" if able else "own"
    wanted = Launch(kind=kind)
    if wanted != read(paths) or not paths.launch.exists():
        if kind == "systemd":
            manager.must_run()
            manager.make_user(wanted.user)
            manager.must_pass(wanted.user, paths.root)
        fsio.write(paths.launch, wanted.to_bytes())
    return wanted


def start(paths: HostPaths, log: Path, *words: str) -> int | None:
    """Start a daemon; returns its process id when it is a child of ours."""
    chosen = read(paths)
    if chosen.kind == "own":
        return processes.spawn(paths, log, *words)
    user = user_of(paths, *words)
    for folder in units.writable(paths, words):
        fsio.make_dirs(folder, 0o700)
        if user == units.ROOT:
            _open_the_way(folder)
        else:
            give(paths, folder)
    for path in (paths.keys, paths.tls):
        if path.exists():
            give(paths, path)
    for name, text in units.render(paths, user, words).items():
        manager.put(name, text)
    manager.start(units.name_of(words))
    return None


def ahead(paths: HostPaths, log: Path, *words: str) -> Ahead | None:
    """Load a daemon that is to start soon; None where systemd starts it."""
    return Ahead(paths, log, *words) if read(paths).kind == "own" else None


def user_of(paths: HostPaths, *words: str) -> str:
    """Who runs a daemon under systemd: the service user; root, what commands a container engine."""
    if words[0] == "supervise":
        deployment = load(paths, words[1], words[2])
        if serving_plan(deployment.manifest).runtime == "image":
            return units.ROOT
    if words[0] == "supervise-gateway":
        deployment = load(paths, words[1], words[2])
        if deployment.manifest.gateway_image() is not None:
            return units.ROOT
    return read(paths).user


def _open_the_way(folder: Path) -> None:
    """To what the front reads in there; everything else has a mode of its own."""
    with fsio.disk_errors(f"opening {folder}"):
        os.chmod(folder, 0o711)  # noqa: S103 - to pass through, not to list


def stop(paths: HostPaths, lock: Path, seconds: float, *words: str) -> bool:
    """End a daemon, whoever started it; False when none was alive."""
    ended = False
    if read(paths).kind == "systemd":
        ended = manager.stop(units.name_of(words))
    return processes.terminate(lock, seconds) or ended


def at_boot(paths: HostPaths, name: str) -> None:
    """Have systemd bring NAME up with the host; with our own, the site's init must do it."""
    chosen = read(paths)
    if chosen.kind == "systemd":
        for unit, text in units.render_boot(paths, name).items():
            manager.put(unit, text)
        manager.enable(units.boot_name(name))


def forget(paths: HostPaths, *words: str) -> None:
    """Remove a daemon's units, when it is not to come back."""
    if read(paths).kind == "systemd":
        for name in units.render(paths, USER, words):
            manager.remove(name)


def forget_boot(paths: HostPaths, name: str) -> None:
    """As `forget`, of what brings NAME up with the host."""
    if read(paths).kind == "systemd":
        for unit in units.render_boot(paths, name):
            manager.remove(unit)


def give(paths: HostPaths, path: Path) -> None:
    """Make `path`, and all below it, the service user's, where there is one."""
    user = service_user(paths)
    if user is not None:
        with fsio.disk_errors(f"giving {path} to {user.pw_name}"):
            _chown(path, user.pw_uid, user.pw_gid)


def service_user(paths: HostPaths) -> pwd.struct_passwd | None:
    """Whom the daemons run as; None where they run as we do. Raises HostError
    `host.service-user`."""
    chosen = read(paths)
    if chosen.kind == "own":
        return None
    try:
        return pwd.getpwnam(chosen.user)
    except KeyError as e:
        raise HostError(
            "host.service-user",
            f"this host has no user {chosen.user}",
            why="the daemons run as that user under systemd",
            do="run `airgap service install`, which makes it",
        ) from e


def _chown(path: Path, uid: int, gid: int) -> None:
    """By open folders and never through a link: what lies in there may be the service user's own
    doing, also while we look."""
    os.chown(path, uid, gid, follow_symlinks=False)
    if stat.S_ISDIR(os.lstat(path).st_mode):
        for _, folders, files, opened in os.fwalk(path, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, uid, gid, dir_fd=opened, follow_symlinks=False)
