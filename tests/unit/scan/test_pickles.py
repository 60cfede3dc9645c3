"""modelscan in its child: its word counts only for what it really read."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import pytest

from bundler.scan import bounds
from bundler.scan.content import ContentScanner
from bundler.scan.pickles import ModelscanScanner
from tests.unit.scan.makers import ids, look, make_zip, severity, sound_safetensors

CALLS = b"cposix\nsystem\n(S'id'\ntR."
PLAIN = pickle.dumps({"a": [1, 2]})


@pytest.mark.parametrize(
    "name",
    ["m.bin", "m.PKL", "m.safetensors", "m.gguf", "m.onnx", "m.msgpack", "m.model", "m", "a b, é"],
)
def test_pickle_that_calls_is_found_under_any_name(tmp_path: Path, name: str) -> None:
    result = look(ModelscanScanner(), tmp_path, {name: CALLS})
    assert severity(result, "modelscan.issue") == "critical"
    assert "pickle.present" in ids(look(ContentScanner(), tmp_path, {name: CALLS}))


def test_plain_pickle_is_covered_and_still_refused_as_a_pickle(tmp_path: Path) -> None:
    result = look(ModelscanScanner(), tmp_path, {"m.pkl": PLAIN})
    assert result.covered and not result.findings
    content = look(ContentScanner(), tmp_path, {"m.pkl": PLAIN})
    assert severity(content, "pickle.present") == "critical"


def test_every_global_of_a_legacy_torch_file_is_seen(tmp_path: Path) -> None:
    """Its own PyTorch scanner stops after the first of the pickles in such a file."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    result = look(ModelscanScanner(), tmp_path, {"m.pt": magic + PLAIN + CALLS})
    assert "modelscan.issue" in ids(result)


@pytest.mark.parametrize(
    "data", [zlib.compress(CALLS), b"\x80\x04broken", b"7z\xbc\xaf\x27\x1c" + b"\x00" * 40]
)
def test_what_modelscan_cannot_read_is_not_covered(tmp_path: Path, data: bytes) -> None:
    result = look(ModelscanScanner(), tmp_path, {"m.pkl": data})
    assert not result.covered
    assert result.unscanned


def test_zip_with_a_spoilt_member_is_not_covered(tmp_path: Path) -> None:
    data = make_zip({"archive/data.pkl": CALLS}, 0).replace(b"posix", b"pOsix", 1)
    result = look(ModelscanScanner(), tmp_path, {"m.pt": data})
    assert not result.covered


def test_tree_without_anything_for_it_starts_no_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nonexistent")
    result = look(ModelscanScanner(), tmp_path, {"m.safetensors": sound_safetensors("a")})
    assert not result.covered and not result.unscanned and not result.findings


def test_settings_in_the_working_directory_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modelscan-settings.toml").write_text("[unsafe_globals]\n")
    monkeypatch.chdir(tmp_path)
    assert "modelscan.issue" in ids(look(ModelscanScanner(), tmp_path / "in", {"m.pkl": CALLS}))


def test_nothing_of_the_environment_reaches_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = tmp_path / "hook" / "sitecustomize.py"
    hook.parent.mkdir()
    hook.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("PYTHONPATH", str(hook.parent))
    assert look(ModelscanScanner(), tmp_path / "in", {"m.pkl": PLAIN}).covered
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("bound", "value"), [("MODELSCAN_ADDRESS_BYTES", 64 << 20), ("MODELSCAN_WALL_SECONDS", 0.05)]
)
def test_child_over_its_bounds_is_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: float
) -> None:
    from bundler.scan.gate import ScanArtifact, ScanFile, scan
    from tests.unit.scan.makers import put

    monkeypatch.setattr(bounds, bound, value)
    files = [ScanFile(s.path, s.sha256, s.size, s.file) for s in put(tmp_path, {"m.pkl": PLAIN})]
    findings, coverage = scan([ScanArtifact("m", "model", tuple(files))])
    assert {c.verdict for c in coverage.files} == {"not-covered"}
    assert "modelscan" in coverage.files[0].reason
    assert "pickle.present" in {f.id for f in findings.findings}
