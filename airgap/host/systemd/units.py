"""Our daemons as systemd units: text, and nothing else. Hardened as far as each of them allows.

The engine's unit runs our supervisor, which runs the engine: crashes of the engine are counted in
one place whatever keeps the supervisor running, and systemd keeps the supervisor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from airgap import limits
from airgap.host import processes
from airgap.host.paths import HostPaths

_STOP_SECONDS = limits.ENGINE_STOP_SECONDS + 25
# What every daemon of ours can do without. Each line: systemd.exec(5).
_HARDENED = (
    "NoNewPrivileges=yes",
    "CapabilityBoundingSet=",
    "AmbientCapabilities=",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "PrivateTmp=yes",
    "RemoveIPC=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "LockPersonality=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged",
    "SystemCallErrorNumber=EPERM",
    "UMask=0077",
)
# A relay writes no code and sees no device; engines compile kernels, need GPUs and bind threads.
_RELAY = (
    "MemoryDenyWriteExecute=yes",
    "PrivateDevices=yes",
    "PrivateIPC=yes",
    "ProcSubset=pid",
    "SystemCallFilter=~@resources",
)
# What commands a container engine cannot be shut in itself: no setting here that gives it mounts of
# its own (the engine's would be seen by nobody else) or takes rights. The container is shut in.
ROOT = "root"
# The door's user is called as the service user with this behind it, and is in that one's group.
DOOR = "-door"
_CONTAINS = (
    "KillMode=mixed",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "SystemCallArchitectures=native",
    "UMask=0022",
)
_LOOPBACK_ONLY = ("IPAddressDeny=any", "IPAddressAllow=localhost")


def name_of(words: tuple[str, ...]) -> str:
    """The unit of a daemon: `sealift-NAME-engine-VERSION.service` for example."""
    kind = {"supervise": "engine", "supervise-gateway": "gateway"}.get(words[0], words[0])
    return "-".join(["sealift", words[1], kind, *map(_escaped, words[2:])]) + ".service"


def boot_name(name: str) -> str:
    """The unit that brings NAME up with the host."""
    return f"sealift-{name}.service"


def _escaped(text: str) -> str:
    """As systemd-escape(1) does it for what a version may hold."""
    return re.sub(r"[^A-Za-z0-9._]", lambda m: f"\\x{ord(m[0]):02x}", text)


def writable(paths: HostPaths, words: tuple[str, ...]) -> tuple[Path, ...]:
    """The folders that a daemon writes to; it writes nowhere else."""
    if words[0] == "front":
        return (paths.front(words[1]).folder,)
    if words[0] == "door":
        return (paths.door(words[1]).folder,)
    place = paths.deployment(words[1], words[2])
    if words[0] == "supervise-gateway":
        place = place.gateway
    return (place.run, place.logs, place.tmp)


def render(paths: HostPaths, user: str, words: tuple[str, ...]) -> dict[str, str]:
    """File name -> text of everything that a daemon needs. Root is the user of none but the
    parent of a container."""
    kind, name = words[0], words[1]
    out = {name_of(words): _service(paths, user, words)}
    if kind == "supervise":
        out[name_of(("give-back", *words[1:]))] = text_of(
            ("Unit", [f"Description=Sealift {name}: return to the version before"]),
            (
                "Service",
                [
                    "Type=oneshot",
                    "TimeoutStartSec=infinity",
                    f"ExecStart={_command(paths, 'give-back', *words[1:])}",
                    # Nothing serves until it has worked: what failed once may have been load.
                    "Restart=on-failure",
                    "RestartSec=10",
                    "RestartPreventExitStatus=2 3 4 5",
                ],
            ),
        )
    return out


def render_boot(paths: HostPaths, name: str) -> dict[str, str]:
    """What starts with the host: `airgap start` judges, starts and checks what is current."""
    text = text_of(
        (
            "Unit",
            [
                f"Description=Sealift {name}",
                "Documentation=man:systemd.service(5)",
                "After=local-fs.target",
                f"RequiresMountsFor={quoted(str(paths.root))}",
            ],
        ),
        (
            "Service",
            [
                "Type=oneshot",
                "RemainAfterExit=yes",
                "TimeoutStartSec=infinity",
                f"ExecStart={_command(paths, 'start', name)}",
                # Another command may hold the host's lock; nothing else gets better by itself.
                "Restart=on-failure",
                "RestartSec=5",
                "RestartPreventExitStatus=2 3 4 5 8 9",
            ],
        ),
        ("Install", ["WantedBy=multi-user.target"]),
    )
    return {boot_name(name): text}


def _service(paths: HostPaths, user: str, words: tuple[str, ...]) -> str:
    unit = [f"Description=Sealift {' '.join(words)}", "StartLimitIntervalSec=0"]
    if words[0] == "supervise":
        unit.append(f"OnFailure={name_of(('give-back', *words[1:]))}")
    service = [
        "Type=exec",
        f"ExecStart={_command(paths, *words)}",
        f"User={user}",
        *([f"SupplementaryGroups={user.removesuffix(DOOR)}"] if words[0] == "door" else []),
        "Restart=always",
        "RestartSec=1",
        # 9: crashed too often. To start it again is a decision.
        "RestartPreventExitStatus=9",
        f"TimeoutStopSec={_STOP_SECONDS}",
        "LimitNOFILE=65536",
        f"WorkingDirectory={quoted(str(paths.root))}",
        f"Environment=TMPDIR={quoted(str(writable(paths, words)[-1]))}",
        *(_CONTAINS if user == ROOT else _shut_in(paths, words)),
    ]
    return text_of(("Unit", unit), ("Service", service))


def _shut_in(paths: HostPaths, words: tuple[str, ...]) -> Iterable[str]:
    yield from _HARDENED
    yield from _of_kind(words[0])
    yield from (f"ReadWritePaths={quoted(str(p))}" for p in writable(paths, words))


def alone() -> tuple[str, ...]:
    """For a program that computes and writes nothing: less than any daemon of ours is left."""
    return (*_HARDENED, "PrivateDevices=yes", "PrivateIPC=yes", "PrivateNetwork=yes")


def without_hardening(text: str) -> str:
    """The same unit as root would write it without a thought, to compare with."""
    hardening = {*_HARDENED, *_RELAY, *_CONTAINS, *_LOOPBACK_ONLY}
    kept = (
        line
        for line in text.splitlines()
        if line not in hardening
        and not line.startswith(("RestrictAddressFamilies=", "ReadWritePaths=", "User="))
    )
    return "\n".join(kept) + "\n"


def _of_kind(kind: str) -> Iterable[str]:
    if kind == "door":
        return (*_RELAY, "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX")
    if kind == "front":
        return (*_RELAY, *_LOOPBACK_ONLY, "RestrictAddressFamilies=AF_INET AF_UNIX")
    # Tensor libraries ask netlink for interfaces.
    families = "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK"
    return (*_LOOPBACK_ONLY, families)


def _command(paths: HostPaths, *words: str) -> str:
    return " ".join(quoted(w) for w in processes.daemon_command(paths, *words))


def quoted(text: str) -> str:
    """One word of systemd.syntax(7); `%` and `$` mean something to it."""
    text = text.replace("\\", "\\\\").replace("%", "%%").replace("$", "$$")
    return text if re.fullmatch(r"[A-Za-z0-9_./%@:+=,-]+", text) else f'"{text}"'


def text_of(*sections: tuple[str, list[str]]) -> str:
    """A unit file of those sections."""
    head = "# Written by airgap; changes are lost. Own settings: systemctl edit.\n"
    return head + "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections)
