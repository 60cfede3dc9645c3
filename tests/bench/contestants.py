"""Who runs: our commands, and what anybody would use instead, each as one whole process."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from airgap import fsio
from bundler.fetch.resolver import find_uv
from tests.bench.payload import Made

_HERE = Path(__file__).parent
MODEL_SIGNING = ("model-signing==1.1.1", "pyOpenSSL")
# The command as an installed package, and as the one file that hosts get.
INSTALLED = (sys.executable, "-I", "-m", "airgap")


@dataclass(frozen=True)
class Contestant:
    """`argv` is timed, `prepare` before it is not. `peer`: whose time is 1.00."""

    name: str
    peer: str
    argv: Sequence[str]
    prepare: Callable[[], None] | None = None


def hashing(made: Made, work: Path, pyz: Path) -> list[Contestant]:
    """Read every byte of the bundle and judge it, write nothing."""
    folder, peer = str(made.blobs), "SHA-256, Python, all cores"
    threads = (sys.executable, "-I", str(_HERE / "sha256_threads.py"), folder)
    cores = str(len(os.sched_getaffinity(0)))
    xargs = f"find '{folder}' -type f -print0 | xargs -0 -n1 -P{cores} sha256sum"
    root = work / "verify-host"
    _trusting(root, made)
    verify = ("--root", str(root), "verify", str(made.bundle))
    return [
        Contestant(peer, peer, threads),
        Contestant("sha256sum, all cores", peer, ("sh", "-c", xargs)),
        Contestant("model_signing verify", peer, _model_signing(made, work)),
        Contestant("airgap verify", peer, (*INSTALLED, *verify)),
        Contestant("airgap.pyz verify", peer, (sys.executable, "-I", "-S", str(pyz), *verify)),
    ]


def copying(made: Made, work: Path, pyz: Path) -> list[Contestant]:
    """Bring the bundle's bytes into another folder of the same disk, durably."""
    peer, target, root = "cp -r; sync", work / "copy", work / "host"
    install = ("--root", str(root), "install", str(made.bundle))
    bare = (sys.executable, "-I", "-S", str(pyz))

    def fresh() -> None:
        fsio.remove_tree(target)
        _trusting(root, made)
        os.sync()

    return [
        Contestant(peer, peer, ("sh", "-c", f"cp -r '{made.bundle}' '{target}'; sync"), fresh),
        Contestant("airgap install", peer, (*INSTALLED, *install), fresh),
        Contestant("airgap.pyz install", peer, (*bare, *install), fresh),
        Contestant("airgap install --adopt", peer, (*INSTALLED, *install, "--adopt"), fresh),
    ]


def cloning(made: Made, work: Path, mount: Path) -> list[Contestant]:
    """The same where the file system shares extents: medium and host on one xfs."""
    root = mount / "host"
    medium = mount / "medium"
    subprocess.run(["cp", "-r", str(made.bundle), str(medium)], check=True)
    there = Made(medium, made.root_json, made.size)

    def fresh() -> None:
        _trusting(root, there)
        os.sync()

    argv = (*INSTALLED, "--root", str(root), "install", str(medium))
    return [Contestant("airgap install, reflink", "cp -r; sync", argv, fresh)]


def _trusting(root: Path, made: Made) -> None:
    """A host that was just set up: it trusts the officers and holds nothing."""
    fsio.remove_tree(root)
    fingerprint = hashlib.sha256(made.root_json.read_bytes()).hexdigest()
    add = ("trust", "add", str(made.root_json), "--sha256", fingerprint)
    subprocess.run([*INSTALLED, "--root", str(root), *add], check=True, capture_output=True)


def _model_signing(made: Made, work: Path) -> Sequence[str]:
    """Sign the blobs as a model folder, once; returns the command that verifies."""
    venv, key, public = work / "model-signing", work / "ec.key", work / "ec.pub"
    program, signature = str(venv / "bin" / "model_signing"), str(work / "model.sig")
    if not Path(program).exists():
        uv = [find_uv(), "--quiet", "--cache-dir", str(work / "uv-cache")]
        subprocess.run([*uv, "venv", "--python", sys.executable, str(venv)], check=True)
        install = [*uv, "pip", "install", "--python", str(venv), *MODEL_SIGNING]
        subprocess.run(install, check=True)
    _write_keys(key, public)
    sign = [program, "sign", "key", str(made.blobs)]
    sign += ["--signature", signature, "--private_key", str(key)]
    subprocess.run(sign, check=True, capture_output=True)
    verify = (program, "verify", "key", str(made.blobs), "--signature", signature)
    return (*verify, "--public_key", str(public))


def _write_keys(key: Path, public: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ec

    pair = ec.generate_private_key(ec.SECP256R1())
    private = pair.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    fsio.write(key, private, 0o600)
    spki = pair.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    fsio.write(public, spki)
