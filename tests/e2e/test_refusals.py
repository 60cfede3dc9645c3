"""What bad input gets, through the real commands: its own exit code, one sentence each of what, why
and what to do; the host remembers what it did before, and what served still serves."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airgap.trust.statements import envelope_name
from tests.e2e.hostlab import ENGINE, free_port
from tests.e2e.world import BASE_PYTHON, PROJECT, Connected, Done, Isolated, run, serving, snapshot

pytestmark = pytest.mark.e2e

Spoil = Callable[[Path], None]


@pytest.fixture(scope="module")
def host(
    connected: Connected, v1: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Isolated]:
    yield from serving(connected, v1, tmp_path_factory)


@pytest.fixture
def untouched(host: Isolated) -> Iterator[Isolated]:
    """After the test: the same files, the same memory, the same version serving."""
    before = snapshot(host.root)
    yield host
    assert snapshot(host.root) == before
    assert host.serving() == "1.0"


def copy_of(bundle: Path, tmp_path: Path) -> Path:
    """A copy whose files are its own; blobs too."""
    return Path(shutil.copytree(bundle, tmp_path / "medium" / bundle.name))


def blobs(bundle: Path) -> list[Path]:
    """Payload blobs, largest first."""
    return sorted((bundle / "blobs/sha256").iterdir(), key=lambda p: (-p.stat().st_size, p.name))


def says_three_things(done: Done) -> None:
    assert all(len(done.error[k]) > 10 for k in ("what", "why", "do")), done.err


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o644)
    with open(path, "r+b") as f:
        f.truncate(path.stat().st_size - 1)


def grow(path: Path) -> None:
    path.chmod(0o644)
    with open(path, "ab") as f:
        f.write(b"x")


def swap(bundle: Path) -> None:
    a, b = blobs(bundle)[:2]
    data = a.read_bytes()
    a.chmod(0o644)
    b.chmod(0o644)
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)


def symlink(bundle: Path) -> None:
    blob = blobs(bundle)[0]
    outside = bundle.parent / "elsewhere"
    blob.rename(outside)
    blob.symlink_to(outside)


def fifo(bundle: Path) -> None:
    blob = blobs(bundle)[-1]
    blob.unlink()
    os.mkfifo(blob)


def statement(bundle: Path) -> Path:
    return next((bundle / "trust/metadata/statements").iterdir())


def forged_statement(bundle: Path) -> None:
    """Its signature is another's; the name fits, so that only the signature can tell."""
    path = statement(bundle)
    envelope = json.loads(path.read_bytes())
    signature = bytearray(base64.b64decode(envelope["signatures"][0]["sig"]))
    signature[0] ^= 1
    envelope["signatures"][0]["sig"] = base64.b64encode(signature).decode()
    data = json.dumps(envelope, separators=(",", ":"), sort_keys=True).encode()
    path.unlink()
    (path.parent / envelope_name(data)).write_bytes(data)


def targets_json(bundle: Path) -> Path:
    return max((bundle / "trust/metadata").glob("*.targets.json"))


def without_signature(bundle: Path, keep: int) -> None:
    path = targets_json(bundle)
    data = json.loads(path.read_bytes())
    data["signatures"] = data["signatures"][:keep]
    path.write_text(json.dumps(data))


def twice_signed_by_one(bundle: Path) -> None:
    path = targets_json(bundle)
    data = json.loads(path.read_bytes())
    data["signatures"][1] = {**data["signatures"][0], "keyid": data["signatures"][1]["keyid"]}
    path.write_text(json.dumps(data))


SPOILED: dict[str, tuple[Spoil, int, str]] = {
    "flipped bit": (lambda b: flip(blobs(b)[0]), 3, "integrity.digest"),
    "cut off": (lambda b: cut(blobs(b)[0]), 3, "integrity.size"),
    "grown": (lambda b: grow(blobs(b)[0]), 3, "integrity.size"),
    "missing blob": (lambda b: blobs(b)[0].unlink(), 3, "bundle.missing"),
    "two blobs swapped": (swap, 3, "integrity.size"),
    "extra file": (lambda b: (b / "notes.txt").write_text("x") and None, 3, "bundle.extra"),
    "extra folder": (lambda b: (b / "more").mkdir(), 3, "bundle.extra"),
    "link for a blob": (symlink, 3, "integrity.not-a-file"),
    "fifo for a blob": (fifo, 3, "integrity.not-a-file"),
    "README changed": (lambda b: flip(b / "README.txt"), 3, "integrity.digest"),
    "report changed": (lambda b: flip(b / "REVIEW.html"), 3, "integrity.digest"),
    "sums changed": (lambda b: flip(b / "SHA256SUMS"), 3, "integrity.digest"),
    "index changed": (lambda b: flip(b / "index.json"), 3, "integrity.digest"),
    "no approval": (lambda b: without_signature(b, 0), 4, "trust.threshold"),
    "one short of the threshold": (lambda b: without_signature(b, 1), 4, "trust.threshold"),
    "one officer twice": (twice_signed_by_one, 4, "trust.threshold"),
    "one statement missing": (lambda b: statement(b).unlink(), 4, "trust.approvals"),
    "statement changed": (lambda b: flip(statement(b)), 3, "bundle.extra"),
    "statement changed and named by its new digest": (forged_statement, 4, "trust.statement"),
    "no timestamp": (
        lambda b: (b / "trust/metadata/timestamp.json").unlink(),
        4,
        "trust.incomplete",
    ),
}


@pytest.fixture(scope="module")
def elsewhere(connected: Connected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Isolated]:
    """A second host, in a namespace of its own, that trusts the officers and holds nothing."""
    root = tmp_path_factory.mktemp("elsewhere") / "root"
    made = Isolated(root, connected.folder / "kit" / "airgap.pyz")
    made.trust(connected.home / "root.json")
    yield made
    made.close()


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_bundle_is_refused(
    name: str, v1: Path, untouched: Isolated, elsewhere: Isolated, tmp_path: Path
) -> None:
    """Where it serves already, and where every byte would come from the medium."""
    spoil, code, error = SPOILED[name]
    bundle = copy_of(v1, tmp_path)
    spoil(bundle)
    tried = [(untouched, ["install", "--dry-run"]), (elsewhere, ["verify"])]
    for host, words in [*tried, (elsewhere, ["install"])]:
        done = host.airgap(*words, str(bundle), expect=code)
        assert done.error["id"] == error
        says_three_things(done)
    assert not (elsewhere.root / "deployments").exists()
    for blob in (elsewhere.root / "store/blobs/sha256").glob("*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name


def test_a_damaged_medium_cannot_touch_what_the_store_holds(
    v1: Path, untouched: Isolated, tmp_path: Path
) -> None:
    """Where the store has every blob, its own bytes are checked and the medium's are not read."""
    bundle = copy_of(v1, tmp_path)
    flip(blobs(bundle)[0])
    untouched.airgap("install", str(bundle))


def test_manifest_changed_after_approval_is_refused(
    v1: Path, untouched: Isolated, tmp_path: Path
) -> None:
    bundle = copy_of(v1, tmp_path)
    manifest = bundle / "trust/targets/smollm2/1.0.manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"release":1', b'"release":7'))
    done = untouched.airgap("install", str(bundle), expect=4)
    assert done.error["id"] == "trust.not-listed"


def test_bundle_for_other_officers_is_refused(
    connected: Connected, v1: Path, host: Isolated, tmp_path: Path
) -> None:
    """A host that trusts other people refuses, and remembers only them."""
    other = tmp_path / "other"
    made = run([sys.executable, "-c", _OTHER_ROOT, str(other)], PROJECT)
    assert made.code == 0, made.err
    root = tmp_path / "root"
    host.trust(other / "root.json", root=root)
    before = snapshot(root)
    done = host.airgap("install", str(v1), expect=4, root=root)
    assert done.error["id"] == "trust.equivocation"
    assert snapshot(root) == before


_OTHER_ROOT = """
import sys; from pathlib import Path
from tests.lab import Lab
lab = Lab(Path(sys.argv[1]))
published = lab.init()
(lab.home / "root.json").write_bytes(published.roots[1])
"""


def test_host_without_trust_refuses_and_makes_no_folder(
    v1: Path, host: Isolated, tmp_path: Path
) -> None:
    root = tmp_path / "fresh"
    assert host.airgap("install", str(v1), expect=4, root=root).error["id"] == "trust.none"
    assert not root.exists()


def test_wrong_fingerprint_is_refused(connected: Connected, host: Isolated, tmp_path: Path) -> None:
    root = tmp_path / "fresh"
    words = ["trust", "add", str(connected.home / "root.json"), "--sha256", "0" * 64]
    assert host.airgap(*words, expect=4, root=root).error["id"] == "trust.fingerprint"
    assert not (root / "trust.json").exists()


def test_trust_is_never_replaced(connected: Connected, untouched: Isolated) -> None:
    path = connected.home / "root.json"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    done = untouched.airgap("trust", "add", str(path), "--sha256", sha256, expect=4)
    assert done.error["id"] == "trust.exists"


def test_lost_trust_record_is_not_taken_for_a_fresh_host(
    connected: Connected, v1: Path, host: Isolated, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    host.trust(connected.home / "root.json", root=root)
    (root / "trust.json").unlink()
    sha256 = hashlib.sha256((connected.home / "root.json").read_bytes()).hexdigest()
    words = ["trust", "add", str(connected.home / "root.json"), "--sha256", sha256]
    assert host.airgap(*words, expect=4, root=root).error["id"] == "trust.state-damaged"
    assert host.airgap("install", str(v1), expect=4, root=root).error["id"] == "trust.none"


def test_torn_trust_record_refuses(
    connected: Connected, v1: Path, host: Isolated, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    host.trust(connected.home / "root.json", root=root)
    cut(root / "trust.json")
    done = host.airgap("install", str(v1), expect=4, root=root)
    assert done.error["id"] == "trust.state-damaged"


def test_policy_of_the_host_refuses_a_format(
    connected: Connected, v1: Path, host: Isolated, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    host.trust(connected.home / "root.json", root=root)
    (tmp_path / "p.toml").write_text('name = "tensors-only"\nformats = ["safetensors"]\n')
    connected.sealift("policy", "compile", str(tmp_path / "p.toml"), "-o", str(tmp_path / "p.json"))
    host.airgap("policy", "install", str(tmp_path / "p.json"), root=root)
    before = (root / "ledger.jsonl").read_bytes()
    host.airgap("policy", "install", str(tmp_path / "p.json"), root=root)
    assert (root / "ledger.jsonl").read_bytes() == before
    done = host.airgap("install", str(v1), expect=5, root=root)
    assert done.error["id"] == "policy.format"
    assert not (root / "store").exists()


def test_bundle_for_another_site_is_refused(connected: Connected, untouched: Isolated) -> None:
    bundle = connected.bundle("2.0-elsewhere", top='audience = ["north"]')
    before = untouched.remembered()
    # The newer list is learned, as it must be, so the whole snapshot is compared after that.
    done = untouched.airgap("verify", str(bundle), expect=5)
    assert done.error["id"] == "policy.audience"
    assert untouched.remembered() == before


def test_port_taken_is_refused_before_anything_is_written(
    connected: Connected, v1: Path, host: Isolated, tmp_path: Path
) -> None:
    """On a second host in the same namespace, where the first one holds the port."""
    root = tmp_path / "root"
    host.trust(connected.home / "root.json", root=root)
    done = host.airgap("install", str(v1), expect=7, root=root)
    assert done.error["id"] == "host.not-fit"
    assert f"127.0.0.1:{connected.port}" in done.error["why"]
    assert not (root / "store" / "blobs").exists()
    assert host.serving() == "1.0"


def test_wrong_python_is_refused(connected: Connected, host: Isolated, tmp_path: Path) -> None:
    bundle = connected.bundle("2.1-python", python="3.49", port=str(free_port()))
    root = tmp_path / "root"
    host.trust(connected.home / "root.json", root=root)
    done = host.airgap("install", str(bundle), expect=7, root=root)
    assert "3.49" in done.error["why"]
    assert not (root / "store" / "blobs").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_no_space_is_refused_before_anything_is_written(
    connected: Connected, v1: Path, host: Isolated, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32M", "tmpfs", str(small)], check=True)
    try:
        root = small / "root"
        bundle = connected.bundle("2.2-space", port=str(free_port()))
        host.trust(connected.home / "root.json", root=root)
        done = host.airgap("install", str(bundle), expect=8, root=root)
        assert done.error["id"] == "disk.full"
        assert not (root / "store" / "blobs").exists()
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_two_installs_at_once_one_is_told_to_wait(v1: Path, untouched: Isolated) -> None:
    lock = untouched.root / "lock"
    holder = (
        f"import fcntl, sys; f = open({str(lock)!r}, 'r+'); fcntl.flock(f, fcntl.LOCK_EX); "
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [BASE_PYTHON, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        done = untouched.airgap("install", str(v1), expect=7)
        process.communicate()
    assert done.error["id"] == "host.busy"


# --- the connected side


def sealift(connected: Connected, *words: str, env: dict[str, str] | None = None) -> Done:
    argv = [sys.executable, "-m", "bundler", "--home", str(connected.home), "--json", *words]
    return run(argv, connected.folder, env=os.environ | (env or {}))


def test_request_with_a_typo_is_refused(connected: Connected) -> None:
    path = connected.request("3.0")
    path.write_text(path.read_text().replace("max-model-len", "max-modle-len"))
    done = sealift(connected, "build", str(path))
    assert done.code == 2
    assert "max-model-len" in done.error["why"]
    assert not (connected.home / "builds/smollm2/3.0").exists()


def test_unreachable_index_is_a_source_error(connected: Connected) -> None:
    path = connected.request("3.1")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        # A name that no public index has, so that the request's own index is asked.
        index = f'index = ["http://127.0.0.1:{s.getsockname()[1]}/simple"]'
        text = path.read_text().replace(ENGINE, "sealift-test-only-nowhere==1.0")
        path.write_text(text.replace("requirements", f"{index}\nrequirements"))
        done = sealift(connected, "lock", str(path))
    assert done.code == 6
    says_three_things(done)
    assert not (connected.home / "builds/smollm2/3.1/lock.json").exists()


def test_hostile_model_is_refused_before_officers_are_asked(
    connected: Connected, tmp_path: Path
) -> None:
    tree = tmp_path / "hostile"
    tree.mkdir()
    shutil.copy(connected.parts.gguf, tree / "model.gguf")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, ("true",)

    (tree / "tokenizer.model").write_bytes(pickle.dumps(Evil()))
    pending = (connected.home / "trust/pending.json").read_bytes()
    done = sealift(connected, "build", str(connected.request("3.2", model=str(tree))))
    assert done.code == 5
    assert "pickle" in done.error["why"]
    assert (connected.home / "trust/pending.json").read_bytes() == pending
    assert not (connected.home / "builds/smollm2/3.2/packet").exists()


def test_pack_below_the_threshold_is_refused(connected: Connected) -> None:
    packet = connected.build("3.3")
    assert (
        sealift(connected, "pack", "smollm2", "3.3", "-o", "x").error["id"] == "pack.not-approved"
    )
    connected.approve(packet, "carol")
    done = sealift(connected, "collect", packet)
    assert (done.code, done.error["id"]) == (4, "trust.approvals")
    assert "carol" in done.error["why"]
    connected.approve(packet, "alice")
    connected.sealift("collect", packet)


def test_packet_changed_on_its_way_is_not_signed(connected: Connected) -> None:
    packet = connected.build("3.4")
    report = connected.folder / packet / "REVIEW.html"
    original = report.read_bytes()
    report.write_bytes(original + b" ")
    key = ["--key", "home/keys/alice.key", "--passphrase-file", "pass", "--yes"]
    done = sealift(connected, "approve", packet, *key)
    assert (done.code, done.error["id"]) == (3, "packet.changed")
    assert not list((connected.folder / packet / "signatures").iterdir())
    report.write_bytes(original)
    connected.approve(packet, "alice", "bob")
    connected.sealift("collect", packet)


def test_wrong_passphrase_signs_nothing(connected: Connected) -> None:
    packet = connected.build("3.5")
    (connected.folder / "wrong").write_text("guess\n")
    key = ["--key", "home/keys/alice.key", "--passphrase-file", "wrong", "--yes"]
    done = sealift(connected, "approve", packet, *key)
    assert (done.code, done.error["id"]) == (4, "key.passphrase")
    assert not list((connected.folder / packet / "signatures").iterdir())
    connected.approve(packet, "alice", "bob")
    connected.sealift("collect", packet)


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ('[[model]]\nrepo = "Qwen/Qwen3-8B-FP8"\n', "Qwen/Qwen3-8B-FP8"),
        (
            '[[image]]\nreference = "ghcr.io/x/y:v1"\nplatform = "linux/amd64"\n',
            "ghcr.io/x/y",
        ),
    ],
)
def test_unreachable_source_is_named_and_nothing_is_locked(
    connected: Connected, tmp_path: Path, section: str, what: str
) -> None:
    path = tmp_path / "far.toml"
    head = 'name = "far"\nversion = "1"\n[target]\npython = "3.12"\n'
    path.write_text(head + 'platform = "x86_64-manylinux_2_34"\naccelerator = "cpu"\n' + section)
    dead = f"http://127.0.0.1:{free_port()}"
    away = {"HF_ENDPOINT": dead, "HTTPS_PROXY": dead, "NO_PROXY": "127.0.0.1"}
    done = sealift(connected, "lock", str(path), env=away)
    assert (done.code, done.error["id"]) == (6, "source.unreachable")
    assert what in done.error["what"] + done.error["why"]
    says_three_things(done)
    assert [p.name for p in tmp_path.iterdir()] == ["far.toml"]
