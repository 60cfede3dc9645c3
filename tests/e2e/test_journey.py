"""The whole journey with the real commands, ending in a chat answer without a network; then what a
second run, a second version, a rollback, a revocation and a bad version do to what serves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.world import Connected, Isolated, run, serving, snapshot

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def host(
    connected: Connected, v1: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Isolated]:
    """A host on which 1.0 serves; the tests below take it further, in their order."""
    yield from serving(connected, v1, tmp_path_factory)


def test_the_kit_matches_its_fingerprint_sheet(connected: Connected) -> None:
    done = run(["sha256sum", "-c", "airgap-fingerprints.txt"], connected.folder / "kit")
    assert done.code == 0
    assert "airgap.pyz: OK" in done.out and "root.json: OK" in done.out


def test_a_bundle_is_readable_with_tools_nobody_here_wrote(v1: Path) -> None:
    assert run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], v1).code == 0
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (make test installs it on Debian as root)")
    done = run(["skopeo", "inspect", "--raw", f"oci:{v1}:model"], v1)
    manifest = json.loads(done.out)
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    layer = manifest["layers"][0]
    assert layer["mediaType"] == "application/vnd.cncf.model.weight.v1.raw"
    blob = v1 / "blobs" / "sha256" / layer["digest"].removeprefix("sha256:")
    assert blob.stat().st_size == layer["size"]


def test_skopeo_copies_the_model_out_of_the_bundle(v1: Path, tmp_path: Path) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (make test installs it on Debian as root)")
    done = run(["skopeo", "copy", f"oci:{v1}:model", f"oci:{tmp_path}/copy:model"], tmp_path)
    assert done.code == 0, done.err
    names = {p.name for p in (tmp_path / "copy/blobs/sha256").iterdir()}
    assert names <= {p.name for p in (v1 / "blobs/sha256").iterdir()}


@pytest.mark.usefixtures("v1")
def test_packing_twice_gives_the_same_bytes(connected: Connected) -> None:
    """Twice here: the officers may have published something since `v1` was packed."""
    for out in ("once", "again"):
        connected.sealift("pack", "smollm2", "1.0", "-o", out)
    once, again = (snapshot(connected.folder / out / "smollm2-1.0") for out in ("once", "again"))
    assert once == again and len(once) > 10


def test_it_answers_in_an_empty_network_namespace(connected: Connected, host: Isolated) -> None:
    answer = host.ask(connected.port)
    assert answer["model"] == "smol"
    assert "4" in answer["choices"][0]["message"]["content"]
    routes = run(host.enter("cat", "/proc/net/route"), host.root.parent).out.splitlines()
    assert len(routes) == 1, "the namespace has a route"


def test_the_receipt_names_what_serves(connected: Connected, host: Isolated) -> None:
    receipt = json.loads(host.airgap("receipt").out)
    assert receipt["manifest"] == connected.manifest_sha256("1.0")
    assert [c["passed"] for c in receipt["checks"]] == [True]


def test_a_second_run_of_install_changes_nothing(host: Isolated, v1: Path) -> None:
    before = snapshot(host.root)
    host.airgap("install", str(v1))
    assert snapshot(host.root) == before


def test_verify_and_dry_run_write_nothing(host: Isolated, v1: Path) -> None:
    before = snapshot(host.root)
    host.airgap("verify", str(v1))
    host.airgap("install", "--dry-run", str(v1))
    assert snapshot(host.root) == before


def test_a_version_that_answers_wrongly_leaves_the_old_one_serving(
    connected: Connected, host: Isolated
) -> None:
    bad = connected.bundle("1.1-bad", expect="^no model says this$")
    done = host.airgap("install", str(bad), expect=9)
    assert done.error["id"] == "serving.check-failed"
    assert host.serving() == "1.0"
    assert "4" in host.ask(connected.port)["choices"][0]["message"]["content"]


def test_upgrade_and_rollback(connected: Connected, host: Isolated) -> None:
    host.airgap("install", str(connected.bundle("1.2")))
    assert host.serving() == "1.2"
    host.airgap("rollback")
    assert host.serving() == "1.0"
    host.airgap("rollback", "--version", "1.2")
    assert host.serving() == "1.2"
    assert "4" in host.ask(connected.port)["choices"][0]["message"]["content"]


def test_an_older_release_is_refused_without_flag_and_policy(host: Isolated, v1: Path) -> None:
    assert host.serving() == "1.2"
    for words in (["install", str(v1)], ["install", "--allow-downgrade", str(v1)]):
        assert host.airgap(*words, expect=5).error["id"] == "policy.downgrade"
    assert host.serving() == "1.2"


def test_a_killed_install_is_finished_by_the_same_command(
    connected: Connected, host: Isolated
) -> None:
    """SIGKILL after growing delays, so that it hits trust, import, staging, start and switch."""
    bundle = connected.bundle("1.3")
    for tenths in range(2, 40, 4):
        process = subprocess.Popen(
            host.argv("install", str(bundle)),
            cwd=host.root.parent,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(tenths / 10)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert host.serving() in ("1.2", "1.3"), "nothing serves after a kill"
    host.airgap("install", str(bundle))
    assert host.serving() == "1.3"
    assert "4" in host.ask(connected.port)["choices"][0]["message"]["content"]


def test_a_revocation_reaches_the_host_inside_any_bundle(
    connected: Connected, host: Isolated, v1: Path
) -> None:
    """1.2 is revoked; the news travels with 1.3, which is spoiled on the way and still teaches."""
    connected.revoke("1.2")
    connected.sealift("pack", "smollm2", "1.3", "-o", "after-revocation")
    carried = connected.folder / "after-revocation" / "smollm2-1.3"
    (carried / "stray.txt").write_text("spoiled")
    assert host.airgap("install", str(carried), expect=3).error["id"] == "bundle.extra"
    assert connected.manifest_sha256("1.2") in host.airgap("trust", "show").out
    status = [json.loads(s) for s in host.airgap("status").out.splitlines()]
    assert {s["version"]: s["approval"] for s in status}["1.2"] == "trust.revoked"
    done = host.airgap("rollback", "--version", "1.2", expect=4)
    assert done.error["id"] == "trust.revoked"
    old = connected.folder / "media" / "smollm2-1.2"
    assert host.airgap("install", str(old), expect=4).error["id"] == "trust.revoked"
    assert host.serving() == "1.3"


def test_stop_leaves_no_process_and_start_brings_it_back(
    connected: Connected, host: Isolated
) -> None:
    version = host.serving()
    host.airgap("stop")
    assert host.serving() is None
    sockets = run(host.enter("cat", "/proc/net/tcp"), host.root.parent).out.splitlines()[1:]
    # proc(5): the fourth field is the state, 0A is LISTEN.
    assert [s for s in sockets if s.split()[3] == "0A"] == []
    host.airgap("start")
    assert host.serving() == version
