"""Small real wheels, made here."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str, *, tag: str = "py3-none-any", needs: tuple[str, ...] = ()
) -> Path:
    """A wheel that installs one module; the same arguments give the same bytes."""
    info = f"{name}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {n}\n" for n in needs)
    members = {
        f"{name}.py": b"answer = 4\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        f"{requires}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        f"Tag: {tag}\n".encode(),
    }
    record = "".join(f"{n},sha256={_b64(d)},{len(d)}\n" for n, d in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for n, data in members.items():
            archive.writestr(zipfile.ZipInfo(n, (2020, 1, 1, 0, 0, 0)), data)
    return path


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
