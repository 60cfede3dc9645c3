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

    @property
    def door_user(self) -> str:
        """Who runs doors: keys and certificate are this one's alone, and no engine's."""
        return f"{self.user}{units.DOOR}"


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
            manager.make_user(wanted.door_user)
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
        if user != units.ROOT:
            give(paths, folder, user)
    if words[0] in ("supervise", "supervise-gateway"):
        _open_the_way(paths, units.writable(paths, words)[0])
    if words[0] == "door":
        give_to_door(paths, paths.keys, paths.tls)
    for name, text in units.render(paths, user, words).items():
        manager.put(name, text)
    manager.start(units.name_of(words))
    return None


def ahead(paths: HostPaths, log: Path, *words: str) -> Ahead | None:
    """Load a daemon that is to start soon; None where systemd starts it."""
    return Ahead(paths, log, *words) if read(paths).kind == "own" else None


def user_of(paths: HostPaths, *words: str) -> str:
    """Who runs a daemon under systemd: the service user; another one, what holds the only open
    port; root, what commands a container engine."""
    if words[0] == "door":
        return read(paths).door_user
    if words[0] == "supervise":
        deployment = load(paths, words[1], words[2])
        if serving_plan(deployment.manifest).runtime == "image":
            return units.ROOT
    if words[0] == "supervise-gateway":
        deployment = load(paths, words[1], words[2])
        if deployment.manifest.gateway_image() is not None:
            return units.ROOT
    return read(paths).user


def _open_the_way(paths: HostPaths, folder: Path) -> None:
    """To what front and door read in there: for the service user's group, which what is made in
    there gets too. Nobody else passes: who may open a lock may stand in its way."""
    user = service_user(paths)
    assert user is not None  # noqa: S101 - only systemd's daemons come here
    with fsio.disk_errors(f"opening {folder}"):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, -1, user.pw_gid)
            os.fchmod(fd, 0o2750)
        finally:
            os.close(fd)


def shut_in(paths: HostPaths, seconds: int) -> tuple[str, ...]:
    """The words before a command of a bundle's own that keep it from everything but computing;
    none where our daemons run as we do, and so would it."""
    user = service_user(paths)
    if user is None:
        return ()
    properties = (*units.alone(), f"RuntimeMaxSec={seconds}")
    return manager.shut_in(user.pw_name, properties)


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


def give(paths: HostPaths, path: Path, name: str | None = None) -> None:
    """Make `path`, and all below it, the service user's (or that of `name`), where there is one."""
    user = service_user(paths, name)
    if user is not None:
        with fsio.disk_errors(f"giving {path} to {user.pw_name}"):
            try:
                _chown(path, user.pw_uid, user.pw_gid)
            except RecursionError as e:
                raise _too_deep(path, user.pw_name) from e


def give_to_door(paths: HostPaths, *found: Path) -> None:
    """Make those of the paths that are there the door's, where it has a user of its own."""
    chosen = read(paths)
    if chosen.kind == "own":
        return
    manager.make_user(chosen.door_user)  # a host that an earlier version set up has none
    for path in found:
        if path.exists():
            give(paths, path, chosen.door_user)


def _too_deep(path: Path, user: str) -> HostError:
    return HostError(
        "host.too-deep",
        f"{path} cannot be given to {user}",
        why="folders lie in each other there without end",
        do="find out who made them: the daemon's account may have been taken over; remove them, "
        "then run the same command again",
    )


def service_user(paths: HostPaths, name: str | None = None) -> pwd.struct_passwd | None:
    """Whom the daemons run as (or who is called `name`); None where they run as we do. Raises
    HostError `host.service-user`."""
    chosen = read(paths)
    if chosen.kind == "own":
        return None
    wanted = name or chosen.user
    try:
        return pwd.getpwnam(wanted)
    except KeyError as e:
        raise HostError(
            "host.service-user",
            f"this host has no user {wanted}",
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
