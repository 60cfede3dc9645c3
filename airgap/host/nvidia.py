"""NVIDIA's driver and GPUs, asked of `nvidia-smi`, else of the driver's own library (NVML).

The library is loaded in a child only: one that does not fit the driver may take its process down.
"""

from __future__ import annotations

import re
import shutil
import sys

from airgap import environment, limits
from airgap.format.facts import Gpu, Nvidia
from airgap.host import probe

_QUERY = "driver_version,compute_cap,memory.total,name"
_CUDA = re.compile(r"CUDA[A-Za-z ]*Version\s*:\s*([0-9]{1,3}\.[0-9]{1,3})")
_UNFIT = re.compile(r"[^A-Za-z0-9 ().,@/+_-]+")

# Prints one line of the driver, then one of each GPU, in the form that `nvidia-smi` gives us.
_NVML = """
import ctypes as c
n = c.CDLL("libnvidia-ml.so.1")
def ok(code):
    if code: raise SystemExit(1)
class Memory(c.Structure):
    _fields_ = [(x, c.c_ulonglong) for x in ("total", "free", "used")]
ok(n.nvmlInit_v2())
text = c.create_string_buffer(96)
ok(n.nvmlSystemGetDriverVersion(text, 96)); driver = text.value.decode()
cuda = c.c_int(); ok(n.nvmlSystemGetCudaDriverVersion_v2(c.byref(cuda)))
print("CUDA Version : %d.%d" % (cuda.value // 1000, cuda.value % 1000 // 10))
count = c.c_uint(); ok(n.nvmlDeviceGetCount_v2(c.byref(count)))
for i in range(count.value):
    gpu = c.c_void_p(); ok(n.nvmlDeviceGetHandleByIndex_v2(i, c.byref(gpu)))
    major, minor, memory = c.c_int(), c.c_int(), Memory()
    ok(n.nvmlDeviceGetCudaComputeCapability(gpu, c.byref(major), c.byref(minor)))
    ok(n.nvmlDeviceGetMemoryInfo(gpu, c.byref(memory)))
    ok(n.nvmlDeviceGetName(gpu, text, 96))
    print("%s, %d.%d, %d, %s" % (driver, major.value, minor.value, memory.total >> 20,
                                 text.value.decode()))
"""


def measure() -> Nvidia | None:
    """None on a host where neither the tool nor the library answers."""
    lines = _by_tool() or _by_library()
    return parse(lines)


def _by_tool() -> list[str]:
    tool = shutil.which("nvidia-smi", path=environment.SYSTEM_PATH)
    if tool is None:
        return []
    gpus = probe.ask([tool, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"])
    return probe.ask([tool]) + gpus if gpus else []


def _by_library() -> list[str]:
    if not probe.has_library("libnvidia-ml.so.1"):
        return []
    return probe.ask([sys.executable, "-I", "-S", "-c", _NVML])


def parse(lines: list[str]) -> Nvidia | None:
    """The driver and its GPUs from what was printed; None when no line speaks of a GPU."""
    gpus: list[Gpu] = []
    driver = cuda = None
    for line in lines:
        found = _CUDA.search(line)
        cuda = found.group(1) if found else cuda
        fields = [f.strip() for f in line.split(",", 3)]
        if len(fields) == 4 and re.fullmatch(r"[0-9.]{1,24}", fields[0], re.ASCII):
            gpu = _gpu(fields)
            driver = fields[0] if gpu else driver
            gpus += [gpu] if gpu else []
    return Nvidia(driver=driver, cuda=cuda, gpus=tuple(gpus)) if driver else None


def _gpu(fields: list[str]) -> Gpu | None:
    """Its line, or None where a figure is `[N/A]`, as on a GPU that shares the host's memory."""
    _, capability, memory, name = fields
    if not re.fullmatch(r"[0-9]{1,3}\.[0-9]{1,3}", capability, re.ASCII) or not memory.isdecimal():
        return None
    model = _UNFIT.sub(" ", name).strip()[:100] or "GPU"
    return Gpu(model=model, memory=int(memory) * limits.MIB, compute_capability=capability)
