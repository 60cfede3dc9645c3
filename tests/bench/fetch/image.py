"""An image of 1 GiB from Debian's docker-registry on loopback, against `skopeo copy`."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy

from airgap import fsio, limits
from airgap.format import oci
from tests.bench.fetch.contestants import Contestant, Home, clean, empty
from tests.bench.fetch.table import most, rounds, table
from tests.unit.images.maker import OCI_CONFIG, OCI_LAYER, Made, push, sha, tar_of

_LAYERS = 8
_LAYER_BYTES = 128 * limits.MIB
_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""


def image(work: Path, count: int) -> None:
    """An image of 1 GiB in 8 layers."""
    with registry(work) as host:
        push(made(), f"http://{host}", "bench/image")
        home = Home(work, "http://127.0.0.1:1", source(host))
        group = [home.lock_and_fetch(), _skopeo(work, host)]
        # The registry is not ours: what it sent is not counted.
        rows = rounds(group, count, lambda: 0)
    print(table("image of 1 GiB", rows, _LAYERS * _LAYER_BYTES, "skopeo copy"))
    print(most(rows, "sealift lock --fetch", "skopeo copy", 1.0))


def source(host: str) -> str:
    """What the request says of it."""
    return f'[[image]]\nreference = "{host}/bench/image:1"\nplatform = "linux/amd64"\n'


def _skopeo(work: Path, host: str) -> Contestant:
    folder = work / "skopeo"
    fsio.make_dirs(folder)
    argv = ["skopeo", "--tmpdir", str(work), "copy", "--quiet", "--src-tls-verify=false"]
    argv += [f"docker://{host}/bench/image:1", f"oci:{folder}/image:1"]
    return Contestant("skopeo copy", folder, argv, clean(work), lambda: empty(folder))


def made() -> Made:
    """Layers of noise, packed as gzip that stores: nothing here measures a compressor."""
    out, generator = Made(), numpy.random.default_rng(1)
    layers, names = [], []
    for number in range(_LAYERS):
        tar = tar_of({f"weights-{number}": generator.bytes(_LAYER_BYTES)})
        names.append(f"sha256:{sha(tar)}")
        layers.append(out.descriptor(OCI_LAYER["gzip"], gzip.compress(tar, 0, mtime=0)))
    config = {"os": "linux", "architecture": "amd64", "config": {}}
    config["rootfs"] = {"type": "layers", "diff_ids": names}
    manifest = {"schemaVersion": 2, "mediaType": oci.OCI_MANIFEST, "layers": layers}
    manifest["config"] = out.descriptor(OCI_CONFIG, json.dumps(config).encode())
    out.manifest(manifest, "1")
    return out


@contextlib.contextmanager
def registry(work: Path) -> Iterator[str]:
    """Debian's docker-registry; its host and port."""
    program = shutil.which("docker-registry")
    assert program, "install docker-registry from Debian (the Makefile's TEST_PACKAGES)"
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = work / "registry.yml"
    text = _CONFIG.format(folder=work / "registry", port=host.partition(":")[2])
    fsio.write(config, text.encode())
    with subprocess.Popen([program, "serve", str(config)], stderr=subprocess.DEVNULL) as running:
        try:
            _wait(f"http://{host}/v2/")
            yield host
        finally:
            running.kill()


def _wait(url: str) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert time.monotonic() < until, "the registry did not start"
            time.sleep(0.05)
