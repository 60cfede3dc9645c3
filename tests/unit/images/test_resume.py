"""A layer of several pieces that was broken off goes on by ranges, and only with what it lacks."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airgap.errors import SourceError
from airgap.events import silent
from airgap.format.artifacts import LockedImage
from airgap.format.request import ImageRequest
from airgap.limits import MIB
from bundler.fetch import download, images, job, partial
from bundler.fetch.options import Options
from bundler.fetch.ranges import MIN_PIECE_BYTES, Ranges, piece_bytes
from bundler.workspace import Workspace
from tests.unit.images.counted import Counted, counting, wait_for
from tests.unit.images.faulty import Faulty
from tests.unit.images.maker import Made, push, sha, tar_of

DATA = random.Random(7).randbytes(16 * MIB)
TAR = tar_of({"weights": DATA})
LAYER = sha(TAR)
# What is sent before the line breaks; pieces of all connections are under way then.
BROKEN_AT = 9 * MIB
REQUEST = """\
name = "lab"
version = "1"
summary = "A test"

[target]
python = "3.11"
platform = "x86_64-manylinux_2_36"
accelerator = "cpu"

[[image]]
reference = "{host}/team/large:1"
platform = "linux/amd64"
"""


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture(params=["debian's registry", "ours"])
def counted(
    request: pytest.FixtureRequest, docker_registry: str, faulty: Faulty
) -> Iterator[Counted]:
    """A registry that holds one image of one large layer, with the counter before it."""
    if request.param == "ours":
        faulty.made.image(TAR, packing="tar", tag="1")
        upstream = faulty.host
    else:
        made = Made()
        made.image(TAR, packing="tar", tag="1")
        push(made, docker_registry, "team/large")
        upstream = docker_registry.removeprefix("http://")
    with counting(upstream) as running:
        yield running


def lock(workspace: Workspace, host: str) -> LockedImage:
    request = ImageRequest(reference=f"{host}/team/large:1", platform="linux/amd64")
    return images.lock_image(request, workspace.store, silent)


def fetch(workspace: Workspace, image: LockedImage) -> None:
    download.fetch(images.image_items(image), workspace.store, silent)


def kept(workspace: Workspace) -> Ranges:
    """What the journal says came before the break: nothing when there is none."""
    file = workspace.store.root / "partial" / f"{LAYER}.journal"
    out = Ranges()
    if file.exists():
        for start, end in partial.parse(file.read_bytes(), partial._boot())[1]:
            out.add(start, end)
    return out


def asked_for(counted: Counted) -> list[tuple[int, int]]:
    """The ranges of the layer that were asked for, in order of their bytes."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", a.range) for a in counted.of(LAYER)]
    assert all(found), "the layer was asked for without a range"
    return sorted((int(f[1]), int(f[2]) + 1) for f in found if f)


def only_the_rest_was_sent(workspace: Workspace, counted: Counted, before: Ranges) -> None:
    """Each byte that the journal lacks was sent once, by ranges; the layer is the right one."""
    missing = Ranges()
    for start, end in asked_for(counted):
        assert all(end <= a or b <= start for a, b in [*before, *missing]), "it was sent again"
        missing.add(start, end)
    assert list(missing) == before.gaps(len(TAR))
    assert sum(a.sent for a in counted.of(LAYER)) == len(TAR) - before.total
    assert {a.status for a in counted.of(LAYER)} == {206}
    assert workspace.store.blob_path(LAYER).read_bytes() == TAR


def test_the_layer_is_one_of_several_pieces() -> None:
    assert piece_bytes(len(TAR), Options().connections) == MIN_PIECE_BYTES < len(TAR) // 8


def test_layer_whose_connections_were_cut_goes_on_by_ranges(
    workspace: Workspace, counted: Counted
) -> None:
    image = lock(workspace, counted.host)
    counted.stop, counted.stop_after = "cut", BROKEN_AT
    with pytest.raises(SourceError) as e:
        fetch(workspace, image)
    assert (e.value.id, e.value.exit_code) == ("source.unreachable", 6)
    assert not workspace.store.has(LAYER, len(TAR))
    before = kept(workspace)
    assert 0 < before.total <= BROKEN_AT
    counted.release()
    fetch(workspace, image)
    only_the_rest_was_sent(workspace, counted, before)
    print(f"{before.total} bytes were kept, {len(TAR) - before.total} came on the second run")


def start(workspace: Workspace, *argv: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "bundler", "--home", str(workspace.home), *argv]
    clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return subprocess.Popen(line, env=clean, stderr=subprocess.PIPE, text=True)


def run(workspace: Workspace, *argv: str) -> None:
    child = start(workspace, *argv)
    _, said = child.communicate(timeout=120)
    assert child.returncode == 0, said


def test_layer_goes_on_by_ranges_after_a_kill(
    workspace: Workspace, counted: Counted, tmp_path: Path
) -> None:
    """`sealift fetch`, killed with SIGKILL while the line is silent, and run again."""
    request = tmp_path / "lab.toml"
    request.write_text(REQUEST.format(host=counted.host))
    run(workspace, "lock", str(request))
    counted.stop, counted.stop_after = "hold", BROKEN_AT
    child = start(workspace, "fetch", str(request))
    try:
        wait_for(lambda: kept(workspace).total > BROKEN_AT // 2)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL
    assert not workspace.store.has(LAYER, len(TAR))
    before = kept(workspace)
    counted.release()
    run(workspace, "fetch", str(request))
    only_the_rest_was_sent(workspace, counted, before)
    print(f"{before.total} bytes were kept, {len(TAR) - before.total} came on the second run")


def test_token_that_ends_in_the_middle_of_a_layer_costs_no_byte(
    workspace: Workspace, faulty: Faulty
) -> None:
    """Each token is good for three requests, the layer takes nine; before and after a break."""
    faulty.made.image(TAR, packing="tar", tag="1")
    faulty.token_uses = 3
    with counting(faulty.host) as counted:
        image = lock(workspace, counted.host)
        before_tokens = len(faulty.asked("/token"))
        counted.stop, counted.stop_after = "cut", BROKEN_AT
        with pytest.raises(SourceError):
            fetch(workspace, image)
        before = kept(workspace)
        assert before.total > 0
        counted.release()
        fetch(workspace, image)
        only_the_rest_was_sent(workspace, counted, before)
        asked = faulty.asked(f"/blobs/sha256:{LAYER}")
        assert len({h["authorization"] for h in asked if "authorization" in h}) >= 3
        assert len(faulty.asked("/token")) >= before_tokens + 3
