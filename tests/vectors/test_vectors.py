"""Every vector through the real command line, at the vector's own time; and the vectors on disk
are the ones that the generator makes.

The clock is set from outside (faketime, from Debian): the product has no way to be told the time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airgap import fsio, limits
from airgap.trust import state as trust_state
from airgap.trust.state import Remembered
from tests.vectors.generate import HERE, generate
from tests.vectors.worked import blocks

FAKETIME = shutil.which("faketime")
SPEC = HERE.parents[2] / "docs" / "bundle-format.md"
NAMES = sorted(p.stem for p in HERE.glob("*.json"))


def read(name: str) -> dict[str, Any]:
    return dict(json.loads((HERE / f"{name}.json").read_bytes()))


def stored(sha256: str) -> bytes:
    return (HERE / "files" / sha256).read_bytes()


def remembered(host: dict[str, Any]) -> Remembered:
    targets = None if host["targets"] is None else stored(host["targets"])
    return Remembered(
        "vector", stored(host["root"]), targets, host["clock-floor"], host["accept-solo"]
    )


@dataclass(frozen=True)
class Place:
    """A host and a medium in a folder of their own."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "host"

    @property
    def bundle(self) -> Path:
        return self.folder / "medium" / "tiny-1.0"

    def set_up(self, vector: dict[str, Any]) -> None:
        trust_state.save(self.root / "trust.json", remembered(vector["host"]))
        if vector["host"]["policy"] is not None:
            fsio.write(self.root / "policy.json", stored(vector["host"]["policy"]))
        for path, item in vector["bundle"].items():
            self.put(self.bundle / path, item)

    def put(self, path: Path, item: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(item, str):
            path.write_bytes(stored(item))
        elif "link" in item:
            path.symlink_to(item["link"])
        else:
            with open(path, "wb") as f:
                f.truncate(item["hole"])

    def airgap(self, clock: int, word: str) -> tuple[int, str | None]:
        """Exit code and error id of the real command at that time."""
        assert FAKETIME is not None
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(clock))
        airgap = [sys.executable, "-I", "-m", "airgap", "--root", str(self.root), "--json"]
        done = subprocess.run(
            [FAKETIME, "-f", when, *airgap, word, str(self.bundle)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "TZ": "UTC", "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
        )
        if done.returncode == 0:
            return 0, None
        error = json.loads(done.stderr.strip().splitlines()[-1])
        assert all(len(error[k]) > 5 for k in ("what", "why", "do")), error
        return done.returncode, error["id"]

    def seen(self) -> dict[str, str]:
        """Every file of the host by digest."""
        return {
            str(p.relative_to(self.root)): hashlib.sha256(p.read_bytes()).hexdigest()
            for p in self.root.rglob("*")
            if p.is_file()
        }


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed (apt-get install faketime)")
@pytest.mark.parametrize("name", NAMES)
def test_vector(name: str, tmp_path: Path) -> None:
    vector = read(name)
    place, expect = Place(tmp_path), vector["expect"]
    place.set_up(vector)
    before = place.seen()
    wanted = (expect["exit"], expect["id"])
    if expect["step"] is None or step_of(expect) >= 7:  # up to step 6 both are one function
        assert place.airgap(vector["clock"], "verify") == wanted
        assert place.seen() == before, "verify wrote something"
    assert place.airgap(vector["clock"], "install") == wanted
    after = remembered(vector["host-after"])
    assert trust_state.load(place.root / "trust.json") == after
    written = {n for n, d in place.seen().items() if before.get(n) != d}
    allowed = {"lock", "ledger.jsonl", "trust.json"}
    if expect["exit"] == 0:
        blobs = {f"store/blobs/sha256/{s}" for s in payload(vector)}
        receipts = {n for n in written if n.startswith("receipts/")}
        # What is only stored has a record of its own, so that `gc` knows whose the blobs are.
        stored = {n for n in written if n.startswith("stored/")}
        assert receipts and len(stored) == 1 and blobs <= written
        assert written <= allowed | blobs | receipts | stored
    else:
        assert {n for n in written if not is_checked_blob(place.root / n)} <= allowed
        assert step_of(expect) >= 10 or written <= allowed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["host", "medium"]


def payload(vector: dict[str, Any]) -> set[str]:
    """The blobs that the manifest itself names."""
    path = next(p for p in vector["bundle"] if p.endswith(".manifest.json"))
    manifest = json.loads(stored(vector["bundle"][path]))
    files = [f for a in manifest["artifacts"] for f in a["files"]]
    return {f["sha256"] for f in (*files, *manifest["evidence"])}


def is_checked_blob(path: Path) -> bool:
    """A blob has its name only after its SHA-256 was checked; evidence is taken in first."""
    return (
        path.parent.name == "sha256" and hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    )


def step_of(expect: dict[str, Any]) -> int:
    return int(re.sub("[a-z]", "", expect["step"]))


def test_vectors_on_disk_are_what_the_generator_makes() -> None:
    made = generate()
    found = {str(p.relative_to(HERE)): p.read_bytes() for p in HERE.rglob("*") if p.is_file()}
    assert sorted(found) == sorted(made), "run `make vectors`"
    assert [n for n, d in found.items() if made[n] != d] == [], "run `make vectors`"
    assert sum(map(len, found.values())) < 1_000_000


def test_every_step_that_a_bundle_can_fail_has_a_vector() -> None:
    steps = {read(n)["expect"]["step"] for n in NAMES} - {None}
    assert steps == set(table()) - {"1", "9", "12"}


@pytest.mark.parametrize("name", NAMES)
def test_vector_ends_as_the_specification_says(name: str) -> None:
    expect = read(name)["expect"]
    if expect["step"] is not None:
        assert (expect["id"], expect["exit"]) in table()[expect["step"]]


@pytest.mark.parametrize("block", sorted(blocks()))
def test_worked_bytes_of_the_specification_are_real(block: str) -> None:
    assert blocks()[block] in SPEC.read_text(), "python -m tests.vectors.worked"


def test_every_limit_of_the_specification_exists() -> None:
    named = re.findall(r"`(MAX_[A-Z_]+)`", SPEC.read_text())
    assert len(named) > 15
    assert [n for n in named if not hasattr(limits, n)] == []


def table() -> dict[str, set[tuple[str, int]]]:
    """Step -> the refusals that section 6 lists for it, `id` (exit)."""
    out = {}
    for line in SPEC.read_text().splitlines():
        row = re.fullmatch(r"\| (\d+[a-z]?) \|.*\| ([^|]*) \|", line)
        if row:
            ids = re.findall(r"`([a-z.-]+)` \((\d)\)", row[2])
            out[row[1]] = {(i, int(code)) for i, code in ids}
    return out
