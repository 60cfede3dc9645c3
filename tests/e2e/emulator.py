"""QEMU of Debian 13, whatever this machine has, and whether its KVM runs a kernel.

Without KVM each instruction is translated; QEMU 8.2 and newer translate those for SHA-256 too, and
are sixteen times faster at it than the 7.2 of Debian 12. It is unpacked, not installed, and run by
its own loader.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.caches import alone
from tests.e2e.world import run

_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_PROBE_SECONDS = 30


@dataclass(frozen=True)
class Emulator:
    """`root`: where QEMU was unpacked. `why_slow`: why it is not KVM, or None when it is."""

    root: Path
    why_slow: str | None = None

    def argv(self) -> list[str]:
        """QEMU with no device but those that a test names, and no network at all."""
        accel = "kvm" if self.why_slow is None else "tcg"
        libraries = self.root / _LIBRARIES
        # Translating, two processors now and then end in QEMU's own assertion (iotlb_to_section)
        # while one of them moves the devices' memory at boot.
        processors = "2" if self.why_slow is None else "1"
        # svm and vmx: no virtual machine in the virtual machine.
        return [
            *("env", f"QEMU_MODULE_DIR={libraries}/qemu"),
            *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
            *(str(self.root / "usr/bin/qemu-system-x86_64"), "-nodefaults", "-no-user-config"),
            *("-L", str(self.root / "usr/share/qemu"), "-L", str(self.root / "usr/share/seabios")),
            *("-accel", accel, "-cpu", "max,svm=off,vmx=off"),
            *("-smp", processors, "-nic", "none", "-display", "none", "-vga", "none"),
        ]


def emulator(cache: Path, kernel: Path) -> Emulator:
    """QEMU, unpacked once, by KVM where that runs `kernel`."""
    with alone(cache):
        root = _unpacked(cache)
    return Emulator(root, _why_no_kvm(Emulator(root), kernel))


def _unpacked(cache: Path) -> Path:
    root = cache / "qemu"
    if not (root / "complete").exists():
        shutil.rmtree(root, ignore_errors=True)
        argv = ["mmdebstrap", "--quiet", "--variant=extract"]
        argv += ["--include=qemu-system-x86,seabios,ipxe-qemu", "trixie", str(root)]
        done = run(argv, cache)
        assert done.code == 0, done.err[-2000:]
        (root / "complete").touch()
    return root


def _why_no_kvm(by_kvm: Emulator, kernel: Path) -> str | None:
    """A kernel that finds no root panics, when it runs at all."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm cannot be opened"
    argv = [*by_kvm.argv(), "-m", "512", "-no-reboot", "-serial", "stdio"]
    argv += ["-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    try:
        done = subprocess.run(
            argv, capture_output=True, timeout=_PROBE_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return "KVM is here, but Debian's kernel does not come up on it"
    if b"Kernel panic" in done.stdout:
        return None
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return f"KVM is here, but does not run Debian's kernel: {' '.join(said)[-160:]}"
