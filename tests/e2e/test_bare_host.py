"""From bare Debian, with Python and no network, to an answer: facts carried out, a kit made for
that very host, install.sh, trust, preflight, install. The tests below follow each other."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.caches import alone
from tests.e2e import barehost, hostlab
from tests.e2e.barehost import BareHost
from tests.e2e.world import Connected

pytestmark = pytest.mark.e2e

AIRGAP = "/opt/airgap/airgap"


@pytest.fixture(scope="module")
def media(connected: Connected, v1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The medium: a bundle for the host's Python, and the plain kit to begin with."""
    folder = tmp_path_factory.mktemp("media")
    fits = hostlab.PYTHON == barehost.PYTHON
    bundle = v1 if fits else connected.bundle("bare", python=barehost.PYTHON)
    shutil.copytree(bundle, folder / "bundle", copy_function=os.link)
    shutil.copytree(connected.folder / "kit", folder / "first", copy_function=os.link)
    return folder


@pytest.fixture(scope="module")
def bare(
    media: Path, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BareHost]:
    why = barehost.missing()
    if why is not None:
        pytest.skip(why)
    named = os.environ.get("SEALIFT_TEST_CACHE")
    assert pytestconfig.cache is not None
    cache = Path(named) if named else pytestconfig.cache.mkdir("rootfs")
    made = BareHost(tmp_path_factory.mktemp("bare") / "root", media)
    with alone(cache):
        tar = barehost.make_tar(cache)
    made.start(tar)
    yield made
    made.close()


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_host_is_measured_and_nothing_of_it_is_named(bare: BareHost, media: Path) -> None:
    bare.do("python3", "/media/first/airgap.pyz", "facts", "-o", "/media/host.json")
    found = json.loads((media / "host.json").read_bytes())
    assert (found["system"], found["glibc"]) == ("debian 12", "2.36")
    assert found["pythons"] == [{"venv": False, "version": barehost.PYTHON}]
    assert found["default-route"] is False and found["resolver"] is False
    assert found["libraries"] == ["libgomp.so.1", "libstdc++.so.6"]
    assert not (bare.root / "var/lib/airgap").exists()


def test_the_connected_side_plans_and_makes_a_kit_for_it(
    connected: Connected, bare: BareHost, media: Path
) -> None:
    planned = connected.sealift(
        "plan",
        "smollm2-1.0.toml",
        "--host",
        str(media / "host.json"),
        expect=0 if hostlab.PYTHON == barehost.PYTHON else 7,
    )
    judged = {j["what"]: j["fits"] for j in json.loads(planned.out)["judged"]}
    assert judged["platform"] and judged["library"]
    connected.sealift("kit", "-o", str(media / "kit"), "--host", str(media / "host.json"))
    assert list((media / "kit" / "wheels").glob("cryptography-*manylinux*"))
    # The sheet takes another way: it is on the host already when the kit comes.
    sheet = media / "kit" / "airgap-fingerprints.txt"
    shutil.copy(sheet, bare.root / "root" / "sheet.txt")
    sheet.unlink()


def test_a_kit_that_was_changed_on_the_way_is_not_installed(bare: BareHost, media: Path) -> None:
    path = media / "kit" / "uv"
    good = path.read_bytes()
    path.write_bytes(good + b"\n")
    bare.do("sh", "/media/kit/install.sh", "/root/sheet.txt", expect=3)
    path.write_bytes(good)
    assert not (bare.root / "opt/airgap").exists()


def test_the_kit_installs_and_has_its_libraries(bare: BareHost) -> None:
    done = bare.do("sh", "/media/kit/install.sh", "/root/sheet.txt")
    assert "installed /opt/airgap" in done.out
    assert [p.name for p in (bare.root / "opt").iterdir()] == ["airgap"]
    code = "import sys; sys.path.append('/opt/airgap/lib'); import cryptography, blake3"
    bare.do("python3", "-I", "-c", code)


def test_from_trust_to_an_answer(connected: Connected, bare: BareHost) -> None:
    digest = sha256_of(connected.home / "root.json")
    bare.do(AIRGAP, "trust", "add", "/opt/airgap/root.json", "--sha256", digest)
    bare.do(AIRGAP, "preflight", "/media/bundle")
    assert not (bare.root / "var/lib/airgap/store").exists()
    bare.do(AIRGAP, "verify", "/media/bundle")
    done = bare.do(AIRGAP, "install", "/media/bundle")
    assert "with uv" in done.err, done.err  # the kit's: the host has neither pip nor ensurepip
    assert "no default route" in done.err
    answer = bare.ask(connected.port)
    assert "4" in answer["choices"][0]["message"]["content"]


def test_a_host_that_lacks_a_library_hears_of_it_before_anything_is_written(
    bare: BareHost,
) -> None:
    bare.do(AIRGAP, "stop", "smollm2")
    bare.do("sh", "-c", "mv /usr/lib/*-linux-gnu/libgomp.so.1* /root/ && ldconfig")
    root = ("--root", "/srv/other", "--json")
    (bare.root / "srv/other").mkdir()
    shutil.copy(bare.root / "var/lib/airgap/trust.json", bare.root / "srv/other/trust.json")
    done = bare.do(AIRGAP, *root, "preflight", "/media/bundle", expect=7)
    assert done.error["id"] == "host.not-fit" and "libgomp1" in done.error["do"]
    assert [p.name for p in (bare.root / "srv/other").iterdir()] == ["trust.json"]
