"""A small image that holds a real engine: llama-server of the wheel, and the libraries it loads,
taken from this machine. FROM scratch: no registry of others is to be had in tests."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

from tests.unit.images.maker import Made

_PROGRAM = "llama-server"
FOLDER = "/opt/engine"


def engine_image(wheel: Path, scratch: Path, tag: str) -> tuple[Made, str]:
    """The image and its manifest's SHA-256."""
    files = _engine_files(wheel, scratch)
    made = Made()
    config = {"Entrypoint": [f"{FOLDER}/{_PROGRAM}"], "Env": [f"LD_LIBRARY_PATH={FOLDER}"]}
    layers = (_tar(_libraries(files)), _tar({f"{FOLDER}/{f.name}": f for f in files}))
    return made, made.image(*layers, tag=tag, config={"config": config})


def _engine_files(wheel: Path, scratch: Path) -> list[Path]:
    """The folder that holds the program in the wheel, unpacked."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (program,) = [n for n in names if n.endswith(f"/{_PROGRAM}")]
        folder = program.removesuffix(_PROGRAM)
        out = []
        for name in names:
            if name.startswith(folder) and "/" not in name.removeprefix(folder):
                target = scratch / name.removeprefix(folder)
                target.write_bytes(archive.read(name))
                target.chmod(0o755)
                out.append(target)
    return out


def _libraries(files: list[Path]) -> dict[str, Path]:
    """What the loader would map for them on this machine, at the paths where it is looked for."""
    found: dict[str, Path] = {}
    env = {"LD_LIBRARY_PATH": str(files[0].parent), "PATH": "/usr/bin:/bin"}
    for file in files:
        said = subprocess.run(["ldd", str(file)], capture_output=True, text=True, env=env).stdout
        for path in re.findall(r"(/[^\s]+)\s+\(0x", said):
            if not path.startswith(str(files[0].parent)):
                found[path] = Path(path)
    return found


def _tar(files: dict[str, Path]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, source in sorted(files.items()):
            data = source.resolve().read_bytes()
            info = tarfile.TarInfo(name.lstrip("/"))
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()
