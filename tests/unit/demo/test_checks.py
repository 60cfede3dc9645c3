"""What the demo says before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from airgap.errors import DiskError, HostError
from bundler.demo import checks
from bundler.demo.journey import RECIPES


def test_missing_libraries_give_the_one_line_that_installs_them() -> None:
    checks.libraries({"libc.so.6": "libc6"})
    needed = {"libc.so.6": "libc6", "libnone.so.1": "libnone1", "libno.so.2": "libno2"}
    with pytest.raises(HostError) as caught:
        checks.libraries(needed)
    assert (caught.value.id, caught.value.exit_code) == ("demo.libraries", 7)
    assert caught.value.do == "sudo apt-get install libnone1 libno2"


def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**9})())
    checks.space(tmp_path, RECIPES["llama.cpp"])
    with pytest.raises(DiskError) as caught:
        checks.space(tmp_path, RECIPES["vllm"])
    assert (caught.value.id, caught.value.exit_code) == ("demo.space", 8)
    assert "ENGINE=llama.cpp" in caught.value.do


def test_what_an_earlier_run_left_counts_as_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_bytes(bytes(4_000_000))
    (tmp_path / "again").hardlink_to(tmp_path / "old")
    needed = RECIPES["llama.cpp"].disk_bytes
    usage = type("Usage", (), {"free": needed - 3_900_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage())
    checks.space(tmp_path, RECIPES["llama.cpp"])
    usage.free = needed - 8_000_000  # type: ignore[attr-defined]
    with pytest.raises(DiskError):
        checks.space(tmp_path, RECIPES["llama.cpp"])
