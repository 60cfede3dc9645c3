"""A hostile medium: what lies in its trust folder, and what changes between two looks."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from airgap import bounded, carrier, limits
from airgap.carrier import Expected, check_names, quarantine
from airgap.errors import IntegrityError, SealiftError, UsageError
from tests.vectors.model import Vector

FILES = Vector("", "").files()
META = "trust/metadata"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-1.0"
    for path, data in FILES.items():
        assert isinstance(data, bytes)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return folder


def fault(bundle: Path) -> str | None:
    found = quarantine(bundle).files.fault
    return None if found is None else found.id


def test_good_folder_is_read_whole(bundle: Path) -> None:
    found = quarantine(bundle)
    assert found.files.fault is None
    trust = {p.removeprefix("trust/"): d for p, d in FILES.items() if p.startswith("trust/")}
    assert found.raw == trust


def link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def sock(path: Path) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # a socket's address is short
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(path.name)
    finally:
        os.chdir(here)


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def huge(path: Path) -> None:
    os.truncate(path, limits.MAX_TRUST_FILE_BYTES + 1)


@pytest.mark.parametrize("spoil", [link, fifo, sock, folder_instead, huge])
@pytest.mark.parametrize(
    "name",
    [f"{META}/timestamp.json", f"{META}/1.root.json", "trust/targets/tiny/1.0.manifest.json"],
)
def test_what_is_no_plain_file_of_sane_size_is_refused_and_never_waited_for(
    bundle: Path, name: str, spoil: Callable[[Path], None]
) -> None:
    spoil(bundle / name)
    assert fault(bundle) in (
        "bundle.extra",
        "bundle.targets",
        "bundle.too-large",
        "integrity.not-a-file",
    )
    # What officers signed beside it is still there to be learned.
    assert quarantine(bundle).files.metadata["2.targets.json"] == FILES[f"{META}/2.targets.json"]


@pytest.mark.parametrize("name", ["trust", META, f"{META}/statements", "trust/targets"])
def test_linked_folder_is_refused(bundle: Path, name: str) -> None:
    outside = bundle.parent / "outside"
    (bundle / name).rename(outside)
    (bundle / name).symlink_to(outside)
    assert fault(bundle) is not None


def test_linked_folder_of_the_manifest_is_refused(bundle: Path) -> None:
    (bundle / "trust/targets/tiny").rename(bundle.parent / "outside")
    (bundle / "trust/targets/tiny").symlink_to(bundle.parent / "outside")
    assert fault(bundle) is not None


@pytest.mark.parametrize(
    "name",
    ["01.root.json", "0.root.json", "1.ROOT.json", "root.json", ".hidden", "1.root.json~", "a\nb"],
)
def test_name_that_is_no_metadata_is_refused(bundle: Path, name: str) -> None:
    (bundle / META / name).write_bytes(b"{}")
    assert fault(bundle) == "bundle.extra"


def test_name_that_is_no_text_is_refused_and_shown_harmlessly(bundle: Path) -> None:
    with open(os.fsencode(bundle / META) + b"/\xff\x1b[2J.json", "wb"):
        pass
    found = quarantine(bundle).files.fault
    assert found is not None and found.id == "bundle.extra"
    assert "\x1b" not in found.what
    found.what.encode()


def test_statement_under_another_name_than_its_digest_is_refused(bundle: Path) -> None:
    path = next((bundle / META / "statements").iterdir())
    path.rename(path.with_name("0" * 32 + ".dsse.json"))
    assert fault(bundle) == "bundle.extra"


def test_too_many_files_are_refused_before_they_are_read(bundle: Path) -> None:
    for number in range(limits.MAX_TRUST_FILES + 5):
        (bundle / META / f"{number + 10}.root.json").touch()
    assert fault(bundle) == "bundle.too-large"


def test_too_many_bytes_are_refused(bundle: Path) -> None:
    for number in range(4):
        path = bundle / META / f"{number + 10}.root.json"
        path.touch()
        os.truncate(path, limits.MAX_TRUST_FILE_BYTES)
    assert fault(bundle) == "bundle.too-large"


@pytest.mark.parametrize("more", ["2.0.manifest.json", "x", "sub/y"])
def test_anything_beside_the_one_manifest_is_refused(bundle: Path, more: str) -> None:
    path = bundle / "trust/targets/tiny" / more
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"x")
    assert fault(bundle) == "bundle.targets"


def test_medium_that_changes_after_it_was_read_changes_nothing(bundle: Path) -> None:
    """The trust folder is read once: what is judged later is what was read."""
    found = quarantine(bundle)
    before = dict(found.raw)
    for path in (bundle / META).glob("*.json"):
        path.write_bytes(b"changed")
    assert dict(found.raw) == before


def test_file_that_grows_while_it_is_read_is_bounded(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fstat says small, the reads never end."""

    def endless(_fd: int, buffers: list[memoryview]) -> int:
        return len(buffers[0])

    monkeypatch.setattr(os, "readv", endless)
    with pytest.raises(IntegrityError) as e:
        bounded.read(bundle / META / "timestamp.json", 10 * limits.MIB)
    assert e.value.id == "bundle.too-large"


# --- the walk over names


@pytest.fixture
def named(tmp_path: Path) -> tuple[Path, dict[str, Expected]]:
    folder = tmp_path / "b"
    expected = {"a": Expected("", 1), "d/b": Expected("", 2)}
    (folder / "d").mkdir(parents=True)
    (folder / "a").write_bytes(b"1")
    (folder / "d/b").write_bytes(b"22")
    return folder, expected


def test_exact_names_pass(named: tuple[Path, dict[str, Expected]]) -> None:
    check_names(*named)


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda f: (f / "A").write_bytes(b"1"), "bundle.extra"),
        (lambda f: (f / "d/B").write_bytes(b"22"), "bundle.extra"),
        (lambda f: (f / "e").mkdir(), "bundle.extra"),
        (lambda f: (f / "d/deep/er").mkdir(parents=True), "bundle.extra"),
        (lambda f: (f / "a").unlink(), "bundle.missing"),
        (lambda f: (f / "a").write_bytes(b""), "integrity.size"),
        (lambda f: os.truncate(f / "d/b", 1 << 40), "integrity.size"),
        (
            lambda f: (f / "d").rename(f.parent / "o") and (f / "d").symlink_to("../o"),
            "integrity.not-a-file",
        ),
        (lambda f: (f / "z").symlink_to("a"), "integrity.not-a-file"),
        (lambda f: os.mkfifo(f / "z"), "integrity.not-a-file"),
        (lambda f: (f / "a").unlink() or (f / "a").mkdir(), "bundle.extra"),
    ],
)
def test_any_other_tree_is_refused(
    named: tuple[Path, dict[str, Expected]], spoil: Callable[[Path], object], error: str
) -> None:
    spoil(named[0])
    with pytest.raises(IntegrityError) as e:
        check_names(*named)
    assert (e.value.id, e.value.exit_code) == (error, 3)


def test_walk_opens_no_file(
    named: tuple[Path, dict[str, Expected]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", lambda *_a, **_k: pytest.fail("it opened a file"))
    check_names(*named)


def test_hard_link_to_another_file_of_the_medium_is_only_its_bytes(bundle: Path) -> None:
    """Two names for one file are two files to a reader; each must have its own digest."""
    a, b = sorted((bundle / "blobs/sha256").iterdir())[:2]
    a.unlink()
    os.link(b, a)
    assert fault(bundle) is None


# --- finding a bundle


def test_bundle_is_found_at_the_top_of_a_medium(bundle: Path) -> None:
    assert carrier.find_bundle(bundle.parent) == bundle
    assert carrier.find_bundle(bundle) == bundle


def test_two_bundles_are_not_guessed_between(bundle: Path) -> None:
    (bundle.parent / "other/trust").mkdir(parents=True)
    with pytest.raises(UsageError) as e:
        carrier.find_bundle(bundle.parent)
    assert (e.value.id, e.value.exit_code) == ("bundle.not-found", 2)


def test_nothing_and_nowhere_are_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SealiftError) as e:
            carrier.find_bundle(path)
        assert e.value.id == "bundle.not-found"
