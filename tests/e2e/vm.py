"""A whole air-gapped host as a virtual machine: a kernel of its own, a disk that loses its power, a
USB stick, and no network device at all.

Debian 13 with systemd, podman and cgroup v2, made once by mmdebstrap.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from airgap.host import processes
from tests.caches import alone
from tests.e2e.container import make_rootfs
from tests.e2e.emulator import Emulator
from tests.e2e.hostlab import wait_for
from tests.e2e.machine import Machine
from tests.e2e.world import Done, run

TOOLS = {"mmdebstrap": "mmdebstrap", "mcopy": "mtools", "mkfs.vfat": "dosfstools"}
PACKAGES = ",podman,crun,apparmor,ca-certificates,linux-image-amd64,udev,kmod,e2fsprogs,zstd"
# The disk's driver and file system are all that the first userland needs.
INITRD = (
    'printf "MODULES=list\\n" > "$1/etc/initramfs-tools/conf.d/machine" '
    '&& printf "virtio_pci\\nvirtio_blk\\next4\\n" >> "$1/etc/initramfs-tools/modules" '
    '&& chroot "$1" update-initramfs -u'
)
AGENT = """\
[Unit]
Description=Commands of the tests
[Service]
ExecStart=/usr/bin/python3 -I -S /usr/local/lib/vm_agent.py
Restart=always
"""
LABEL = "CARRIED"
MEDIA = "/media"
_BOOT_SECONDS = 600
_MIB = 1 << 20


def why_not() -> str | None:
    """Why no such machine can be made here, or None."""
    if os.geteuid() != 0:
        return "not root: mmdebstrap makes the machine's files as root"
    lacking = [package for tool, package in TOOLS.items() if shutil.which(tool) is None]
    return (
        f"not installed: {', '.join(lacking)} (make test-long installs them)" if lacking else None
    )


def make_root(cache: Path) -> Path:
    """The machine's files: made once, but for what the tests put among them."""
    root = make_rootfs(cache, "trixie", PACKAGES, name="machine", hook=INITRD)
    (root / "etc/fstab").write_text("/dev/vda / ext4 errors=remount-ro 0 1\n")
    (root / "etc/hostname").write_text("isolated\n")
    (root / "etc/machine-id").write_text(secrets.token_hex(16) + "\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    # Of programs that it does not have; each takes a second to load without KVM.
    for path in (root / "etc/apparmor.d").iterdir():
        if path.is_file():
            path.unlink()
    shutil.copy(Path(__file__).with_name("vm_agent.py"), root / "usr/local/lib")
    units = root / "etc/systemd/system"
    (units / "agent.service").write_text(AGENT)
    wanted = units / "multi-user.target.wants/agent.service"
    wanted.unlink(missing_ok=True)
    wanted.symlink_to("../agent.service")
    return root


def make_disk(cache: Path, disk: Path, size: str = "8G") -> None:
    """A disk that holds the machine, never booted; sparse."""
    with alone(cache):
        root = make_root(cache)
        disk.touch()
        os.truncate(disk, 0)
        done = run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(root), str(disk), size], cache)
        assert done.code == 0, done.err


def make_stick(stick: Path, *folders: Path) -> None:
    """A USB stick with FAT, as an operator carries it, that holds those folders."""
    used = sum(p.stat().st_size for f in folders for p in f.rglob("*") if p.is_file())
    stick.touch()
    os.truncate(stick, used + used // 8 + 64 * _MIB)
    for argv in (
        ["mkfs.vfat", "-F", "32", "-n", LABEL, str(stick)],
        ["mcopy", "-i", str(stick), "-s", "-Q", *map(str, folders), "::/"],
    ):
        done = run(argv, stick.parent)
        assert done.code == 0, done


def kernel_of(cache: Path) -> tuple[Path, Path]:
    """The kernel and its first userland."""
    boot = cache / "machine" / "boot"
    (kernel,), (initrd,) = boot.glob("vmlinuz-*"), boot.glob("initrd.img-*")
    return kernel, initrd


@dataclass
class VirtualMachine(Machine):
    """`disk`: what it boots from and writes to. `stick`: what is plugged in, read-only."""

    tokens: ClassVar[int] = 4

    emulator: Emulator
    kernel: tuple[Path, Path]
    disk: Path
    folder: Path
    stick: Path | None = None
    log: Path | None = None
    memory: str = "3G"
    boot_id: str = field(init=False, default="")
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _line: socket.socket = field(init=False)
    _rest: bytes = field(init=False, default=b"")
    _asked: int = field(init=False, default=0)

    @property
    def console(self) -> Path:
        """What the kernel and systemd say while it boots, of every boot."""
        return self.folder / "console"

    def begin(self) -> None:
        """Power on, and wait until it is up."""
        channel = self.folder / "channel"
        channel.unlink(missing_ok=True)
        argv = [*self.emulator.argv(), "-m", self.memory]
        argv += ["-chardev", f"file,id=console,path={self.console},append=on"]
        argv += ["-serial", "chardev:console"]
        argv += ["-kernel", str(self.kernel[0]), "-initrd", str(self.kernel[1])]
        argv += [
            "-append",
            "root=/dev/vda ro console=ttyS0 quiet mitigations=off",
            *self._devices(channel),
        ]
        with open(self.folder / "qemu.log", "ab") as log:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=processes.die_with_parent(),
            )
        wait_for(channel.exists)
        self._line = socket.socket(socket.AF_UNIX)
        self._line.connect(str(channel))
        self._wait_up()

    def _devices(self, channel: Path) -> Iterator[str]:
        yield from self._disk()
        yield from ("-device", "virtio-serial-pci")
        yield from ("-chardev", f"socket,id=line,path={channel},server=on,wait=off")
        yield from ("-device", "virtserialport,chardev=line,name=sealift")
        yield from ("-device", "virtio-rng-pci", "-device", "qemu-xhci")
        if self.stick is not None:
            drive = f"file={self.stick},format=raw,if=none,id=stick,readonly=on"
            yield from ("-drive", drive, "-device", "usb-storage,drive=stick,removable=on")

    def _disk(self) -> Iterator[str]:
        """Its flushes go no further: this machine does not lose its power. Every write and flush is
        noted in `log`, where there is one."""
        file = f"file.driver=file,file.filename={self.disk}"
        yield from ("-blockdev", f"driver=raw,node-name=disk,{file},cache.no-flush=on")
        if self.log is not None:
            self.log.touch()
            log = f"driver=file,node-name=log,filename={self.log}"
            yield from ("-blockdev", f"{log},cache.no-flush=on")
            yield from ("-blockdev", "driver=blklogwrites,node-name=noted,file=disk,log=log")
        node = "disk" if self.log is None else "noted"
        yield from ("-device", f"virtio-blk-pci,drive={node}")

    def _wait_up(self, seconds: float = _BOOT_SECONDS) -> None:
        self._rest = b""
        self.boot_id = str(self._answer(0, seconds)["boot"])
        self.wait_booted(seconds)

    def sh(self, script: str, expect: int | None = 0) -> Done:
        self.ask_for(script)
        found = self._answer(self._asked, 1800)
        done = Done(int(str(found["code"])), str(found["out"]), str(found["err"]))
        assert expect is None or done.code == expect, f"{script}: {done}"
        return done

    def ask_for(self, script: str) -> None:
        """Have a script run, and do not wait for it."""
        self._asked += 1
        line = json.dumps({"id": self._asked, "script": script}).encode()
        self._line.sendall(line + b"\n")

    def _answer(self, wanted: int, seconds: float) -> dict[str, object]:
        self._line.settimeout(seconds)
        while True:
            *lines, self._rest = self._rest.split(b"\n")
            for line in filter(None, lines):
                found: dict[str, object] = json.loads(line)
                if found["id"] == wanted:
                    return found
            try:
                data = self._line.recv(65536)
            except TimeoutError:
                data = b""
            assert data, f"the machine does not answer; its console: {self.last_words()}"
            self._rest += data

    def last_words(self) -> str:
        return self.console.read_text(errors="replace")[-3000:]

    def plug(self) -> None:
        """Mount the stick, as whoever carried it in does, once the kernel has found it."""
        device = f"/dev/disk/by-label/{LABEL}"
        self.until(lambda: self.sh(f"test -e {device}", None).code == 0, _BOOT_SECONDS)
        self.sh(f"mountpoint -q {MEDIA} || mount -o ro {device} {MEDIA}")

    def reboot(self, seconds: float = _BOOT_SECONDS) -> None:
        """By systemd; the kernel starts again."""
        before = self.boot_id
        self.ask_for("systemctl reboot")
        self._wait_up(seconds)
        assert self.boot_id != before

    def cut(self) -> None:
        """The power fails: whatever the guest had not written to its disk is lost."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._line.close()
        self._process = None

    def power_off(self, seconds: float = _BOOT_SECONDS) -> None:
        """By systemd, which writes everything first."""
        assert self._process is not None
        self.ask_for("systemctl poweroff")
        self._process.wait(timeout=seconds)
        self._line.close()
        self._process = None

    def check_disk(self) -> Done:
        """Whether its file system is right, by a look from outside that changes nothing."""
        return run(["e2fsck", "-f", "-n", str(self.disk)], self.folder)

    def close(self) -> None:
        """Whatever it does: its power is cut."""
        if self._process is not None:
            self.cut()


def look_inside(disk: Path, script: str) -> Done:
    """Mount the disk here, so that its journal is replayed, and run a script among its files."""
    folder = disk.parent / "inside"
    folder.mkdir(exist_ok=True)
    enter = (
        f"mount -o loop {disk} {folder} && mount -t proc proc {folder}/proc && "
        f"exec chroot {folder} /bin/sh -c {shlex.quote(script)}"
    )
    flags = ["-n", "-m", "-p", "--fork", "--kill-child"]
    return run(["unshare", *flags, "sh", "-c", enter], disk.parent)
